"""sandbox: the vendors on loopback, in the foreground."""

import asyncio

import click

from dumbwaiter.cli.session import not_empty
from dumbwaiter.errors import Exit, Failure
from dumbwaiter.naming import shown


@click.command()
@click.option("--port", default=0, type=click.IntRange(0, 65000), help="First port of the block; 0 finds a free one.")
@click.option(
    "--data",
    default="sandbox",
    show_default=True,
    type=click.Path(),
    callback=not_empty,
    help="Where it keeps everything.",
)
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
