"""What a shell offers after Tab: names of providers and watches, and paths of the catalog. Silent when it cannot know."""

import os
import re
from collections.abc import Callable, Iterator
from contextlib import suppress

import click
from click.shell_completion import BashComplete, CompletionItem, get_completion_class

from dumbwaiter.cli.session import Session
from dumbwaiter.errors import Exit, Failure, JournalTrouble
from dumbwaiter.naming import TREES, join, shown, unshown

VARIABLE = "_DUMBWAITER_COMPLETE"  # as click derives it from the program's name
SHELLS = ("bash", "zsh", "fish")
OFFERED = 500  # names at once


class Named(click.Path):
    """A path that is taken as it is: click would look at it, and wait for a disk that does not answer."""

    def convert(self, value: str | os.PathLike[str], _param: click.Parameter | None, _ctx: click.Context | None) -> str:
        return os.fspath(value)


@click.command()
@click.argument("shell", type=click.Choice(SHELLS), required=False)
@click.pass_context
def completion(ctx: click.Context, shell: str | None) -> None:
    """Prints what makes SHELL complete commands, options, names and paths of the catalog.

    \b
    dumbwaiter completion bash > ~/.local/share/bash-completion/completions/dumbwaiter
    dumbwaiter completion zsh > ~/.zfunc/_dumbwaiter      with ~/.zfunc in fpath
    dumbwaiter completion fish > ~/.config/fish/completions/dumbwaiter.fish
    """
    if shell is None:
        raise Failure(f"say for which shell: {', '.join(SHELLS)}", Exit.USAGE)
    found = _Bash if shell == "bash" else get_completion_class(shell)
    assert found is not None
    print(found(ctx.find_root().command, {}, "dumbwaiter", VARIABLE).source())


class _Bash(BashComplete):
    """Reads what is offered as it is: click's own script breaks backslashes and expands patterns."""

    source_template = """\
%(complete_func)s() {
    local IFS=$'\\n' line
    while read -r line; do
        case $line in
            dir,*) compopt -o dirnames ;;
            file,*) compopt -o default ;;
            plain,*) COMPREPLY+=("${line#plain,}") ;;
        esac
        case $line in plain,*/) compopt -o nospace ;; esac
    done < <(env COMP_WORDS="${COMP_WORDS[*]}" COMP_CWORD="$COMP_CWORD" COMP_WORD="${COMP_WORDS[COMP_CWORD]}" \\
        %(complete_var)s=bash_complete "$1")
}
complete -o nosort -F %(complete_func)s %(prog_name)s
"""


def providers_offered(ctx: click.Context, _parameter: click.Parameter, begun: str) -> list[CompletionItem]:
    """Offers the configured providers."""
    return _offer(ctx, begun, lambda session: iter(session.config.provider))


def watches_offered(ctx: click.Context, _parameter: click.Parameter, begun: str) -> list[CompletionItem]:
    """Offers the configured watches."""
    return _offer(ctx, begun, lambda session: iter(session.config.watch))


def names_offered(ctx: click.Context, _parameter: click.Parameter, begun: str) -> list[CompletionItem]:
    """Offers providers and watches."""
    return _offer(ctx, begun, lambda session: iter({**session.config.provider, **session.config.watch}))


def paths_offered(ctx: click.Context, _parameter: click.Parameter, begun: str) -> list[CompletionItem]:
    """Offers what the catalog has below the folder typed so far; where it has nothing, local files."""
    return _offer(ctx, begun, lambda session: _below(session, begun.rpartition("/")[0])) or [
        CompletionItem(begun, type="file")
    ]


def _below(session: Session, typed: str) -> Iterator[str]:
    folder = unshown(typed)
    if not folder:
        yield from (f"{tree}/" for tree in TREES)
    top = folder if folder.partition("/")[0] in TREES else join("files", folder)
    for node in session.catalog.children(top):
        yield join(typed, shown(node.name)) + ("/" if node.folder else "")


def _offer(ctx: click.Context, begun: str, known: Callable[[Session], Iterator[str]]) -> list[CompletionItem]:
    root = ctx.find_root().params
    places = (root.get(name) for name in ("config", "state", "cache", "runtime"))
    session = Session(*places, as_json=False, verbose=False, quiet=True)
    written = _quoted if os.environ.get(VARIABLE) == "bash_complete" else str
    with suppress(Failure, JournalTrouble, OSError):
        found = (name for name in known(session) if name.startswith(begun))
        return [CompletionItem(written(name)) for name, _ in zip(found, range(OFFERED), strict=False)]
    return []


def _quoted(name: str) -> str:
    """Returns the name as bash reads it behind the quote that the word began with: one argument, nothing of it is run.

    Bash's own way (`compopt -o filenames`) is none: it leaves a name's backticks as they are.
    """
    begun = os.environ.get("COMP_WORD", "")
    if re.fullmatch(r"'[^']*", begun):
        return name.replace("'", r"'\''")
    if re.fullmatch(r'"([^"\\]|\\.)*', begun, re.DOTALL):
        return re.sub(r'[\\"$`]', r"\\\g<0>", name).replace("!", r'"\!"')
    return re.sub(r"[^\w/.,%+-]", r"\\\g<0>", name)
