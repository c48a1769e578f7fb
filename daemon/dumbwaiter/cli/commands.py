"""The commands and their options. Each is loaded when it is called, so that asking costs little."""

import errno
import os
import sys
import threading
from contextlib import suppress
from importlib import import_module
from typing import Any, NoReturn

import click
from click.exceptions import NoArgsIsHelpError

from dumbwaiter import __version__
from dumbwaiter.cli.exits import cannot_print, drop_output, seen_enough
from dumbwaiter.cli.session import Session, not_empty
from dumbwaiter.errors import SHORT, Exit, Failure, JournalTrouble
from dumbwaiter.kernel_limits import write_no_core
from dumbwaiter.naming import shown
from dumbwaiter.streams import failed

STOPPED = 3.0  # seconds until a process that has closed everything is gone
COMMANDS = {
    "init": "init",
    "check": "check",
    "run": "run",
    "put": "put",
    "wait": "wait",
    "retry": "jobs",
    "forget": "jobs",
    "rescan": "steer",
    "pause": "steer",
    "resume": "steer",
    "bandwidth": "steer",
    "claim": "claim",
    "sync": "sync",
    "status": "show",
    "verify": "verify",
    "ls": "show",
    "cat": "show",
    "link": "show",
    "history": "show",
    "failed": "show",
    "mount": "mount",
    "umount": "mount",
    "doctor": "doctor",
    "completion": "completion",
    "recover": "recover",
    "service": "service",
    "sandbox": "sandbox",
    "demo": "demo",
}


class _Commands(click.Group):
    """Imports a command's module when the command is called for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Says all of each command's first sentence, however wide the terminal is."""
        commands = ((name, self.get_command(ctx, name)) for name in self.list_commands(ctx))
        with formatter.section("Commands"):
            formatter.write_dl([(name, one.get_short_help_str(1000)) for name, one in commands if one is not None])

    def make_context(self, *values: Any, **named: Any) -> click.Context:
        try:
            return super().make_context(*values, **named)
        except BrokenPipeError:  # as in `invoke`: --help and --version end here
            seen_enough()

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:  # click would make a failure of it
            seen_enough()

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command = getattr(import_module(f"dumbwaiter.cli.{COMMANDS[cmd_name]}"), cmd_name)
        assert isinstance(command, click.Command)
        return command


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.option("--config", metavar="FILE", callback=not_empty, help="Configuration file.")
@click.option("--state", metavar="DIR", callback=not_empty, help="Folder of the journal.")
@click.option("--cache", metavar="DIR", callback=not_empty, help="Folder of the mount's cache.")
@click.option("--runtime", metavar="DIR", callback=not_empty, help="Folder of the control socket.")
@click.option("--json", "as_json", is_flag=True, help="Print facts as JSON.")
@click.option("-v", "--verbose", is_flag=True, help="Say more.")
@click.option("-q", "--quiet", is_flag=True, help="Say less.")
@click.version_option(__version__)
@click.pass_context
def cli(
    ctx: click.Context,
    config: str | None,
    state: str | None,
    cache: str | None,
    runtime: str | None,
    *,
    as_json: bool,
    verbose: bool,
    quiet: bool,
) -> None:
    """Uploads what is dropped into watched folders, and shows what is there.

    \b
    dumbwaiter init                    write a first configuration
    dumbwaiter check                   is it usable?
    dumbwaiter run                     watch and upload
    dumbwaiter status --watch          look on
    dumbwaiter put photo.jpg           upload one file now, print its link
    """
    write_no_core()
    ctx.obj = Session(config, state, cache, runtime, as_json=as_json, verbose=verbose, quiet=quiet)


def run() -> None:
    """Runs a command; ends the process with one of the exit codes of `errors.Exit`."""
    try:
        _run()
    except SystemExit as end:
        # A folder that hangs keeps the threads that asked for it, and Python would wait for them: nothing else is left.
        last = threading.Timer(STOPPED, os._exit, (end.code,))
        last.daemon = True
        with suppress(RuntimeError, MemoryError):  # no more threads can be started
            last.start()
        raise


def _run() -> NoReturn:
    try:
        ended = cli.main(prog_name="dumbwaiter", standalone_mode=False)
        sys.stdout.flush()
        sys.exit(ended if isinstance(ended, int) else Exit.DONE)
    except click.Abort:
        _end("stopped", Exit.FAILED)
    except NoArgsIsHelpError as wrong:
        wrong.show(sys.stderr)
        sys.exit(Exit.USAGE)
    except click.ClickException as wrong:
        _end(_usage(wrong), Exit.USAGE)
    except (Failure, JournalTrouble) as failure:
        _end(str(failure), failure.code)
    except BrokenPipeError:
        seen_enough()
    except OSError as error:
        if _is_of_output(error):
            cannot_print(error)
        if isinstance(error, FileNotFoundError) and error.filename is None and _stands_nowhere():
            _end("the folder that this was started in is not there any more: cd to another one", Exit.USAGE)
        name = f"{shown(os.fsdecode(error.filename))}: " if isinstance(error.filename, str | bytes) else ""
        _end(f"{name}{error.strerror or error}", Exit.TEMPORARY if error.errno in SHORT else Exit.FAILED)
    except MemoryError:
        _end("there is not enough memory: end other programs, or raise this one's limit", Exit.TEMPORARY)
    except RuntimeError as error:
        from dumbwaiter.pool import NO_THREAD

        if str(error) not in {"can't start new thread", NO_THREAD}:
            raise
        _end(NO_THREAD, Exit.TEMPORARY)
    except KeyboardInterrupt:
        sys.exit(130)


def _is_of_output(error: OSError) -> bool:
    """True for an error in writing what is printed: that stays in the buffer, if there is one."""
    try:
        sys.stdout.flush()
    except OSError:
        return True
    unbuffered = getattr(sys.stdout, "write_through", False)
    return unbuffered and error.filename is None and error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def _stands_nowhere() -> bool:
    try:
        os.getcwd()
    except FileNotFoundError:
        return True
    return False


def _usage(wrong: click.ClickException) -> str:
    """Returns click's words as one sentence that ends with where to look."""
    context = getattr(wrong, "ctx", None)
    words = shown(wrong.format_message()).rstrip(".")
    return f"{words[:1].lower()}{words[1:]}: see `{context.command_path if context else 'dumbwaiter'} --help`"


def _end(sentence: str, code: Exit) -> NoReturn:
    failed(sentence)
    try:
        sys.stdout.flush()
    except OSError:  # else the interpreter fails over it once more, with a code of its own
        drop_output()
    sys.exit(code)
