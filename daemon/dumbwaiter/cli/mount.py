"""mount and umount: each becomes the mount's own program."""

import os
import sys

import click

from dumbwaiter.cli.session import Session, not_empty


@click.command()
@click.argument("folder", required=False, callback=not_empty, type=click.Path())
@click.option("--background", is_flag=True, help="Return as soon as it is mounted.")
@click.pass_obj
def mount(session: Session, folder: str | None, *, background: bool) -> None:
    """Mounts the catalog, read-only, on FOLDER or where the configuration says.

    \b
    dumbwaiter mount ~/Uploads --background
    """
    _mount_program(session, *(["--background"] if background else []), "--", *([folder] if folder else []))


@click.command()
@click.argument("folder", required=False, callback=not_empty, type=click.Path())
@click.pass_obj
def umount(session: Session, folder: str | None) -> None:
    """Takes the mount away.

    \b
    dumbwaiter umount ~/Uploads
    """
    _mount_program(session, f"--unmount={folder}" if folder else "--unmount")


def _mount_program(session: Session, *arguments: str) -> None:
    """Becomes the mount's own process: the kernel waits for it on every call, so it does nothing else."""
    talk = [*(["-v"] if session.verbose else []), *(["-q"] if session.quiet else [])]
    words = [*session.places.flags, *talk, *arguments]
    # -P: a folder that one stands in may hold anybody's modules.
    os.execv(sys.executable, [sys.executable, "-P", "-m", "dumbwaiter_fs.mount", *words])
