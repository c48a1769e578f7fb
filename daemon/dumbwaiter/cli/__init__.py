"""The command line. The only place that prints: results on stdout, talk on stderr.

A command that changes anything goes through the daemon when one runs. Commands that read ask the daemon for what
only it knows, and the journal for the rest.
"""

import os
import sys

from dumbwaiter.cli import quick_status
from dumbwaiter.cli.exits import cannot_print, seen_enough, stopped
from dumbwaiter.streams import have_streams, have_utf8


def main() -> None:
    """Runs a command; ends the process with one of the exit codes of `errors.Exit`."""
    have_utf8()
    have_streams()
    try:
        if quick_status.answered(sys.argv[1:]):
            os._exit(0)  # all is said, and to take the interpreter apart would be a tenth of the time
    except BrokenPipeError:
        seen_enough()
    except OSError as error:  # the socket's troubles are told elsewhere
        cannot_print(error)
    except KeyboardInterrupt:
        stopped()
    try:
        from dumbwaiter.cli.commands import run
    except KeyboardInterrupt:
        stopped()
    run()
