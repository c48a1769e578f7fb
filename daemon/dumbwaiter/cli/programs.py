"""Commands that start another program: mount, umount, sandbox."""

import asyncio
import os
import sys

import click

from dumbwaiter.cli.session import Session, not_empty
from dumbwaiter.errors import Exit, Failure
from dumbwaiter.naming import shown


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


@click.command()
@click.option("--port", default=0, type=click.IntRange(0, 65000), help="First port of the block; 0 finds a free one.")
@click.option("--data", default="sandbox", show_default=True, type=click.Path(), help="Where it keeps everything.")
@click.option("--faults", default="", metavar="SPEC", help="What shall go wrong, like nos.put:cut@3.")
@click.option("--seconds", type=click.FloatRange(min=0), help="End after so long.")
def sandbox(port: int, data: str, faults: str, seconds: float | None) -> None:
    """Runs the vendors on loopback, with accounts made for it.

    \b
    dumbwaiter sandbox --data /tmp/vendors --faults nos.put:cut@3
    dumbwaiter --config /tmp/vendors/config.toml --state /tmp/state run
    """
    from dumbwaiter_sandbox import serve

    try:
        asyncio.run(serve(port, data, faults, seconds, lambda line: print(line, flush=True)))
    except ValueError as error:
        raise Failure(str(error), Exit.USAGE) from None
    except OSError as error:
        if error.filename is not None:
            raise Failure(
                f"{shown(str(error.filename))} cannot be used ({error.strerror}): name another --data"
            ) from None
        raise Failure(f"the vendors cannot listen there: {error.strerror or error}") from None
