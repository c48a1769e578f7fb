"""What the pages show is what the program takes."""

import ast
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from dumbwaiter.cli.commands import cli
from dumbwaiter.config import Config
from dumbwaiter.config.file import parse
from dumbwaiter.config.reader import PROVIDERS
from dumbwaiter_sandbox.faults import GENERAL
from dumbwaiter_sandbox.vendors import VENDORS, catalogue

ROOT = Path(__file__).parent.parent
BLOCKS = [
    pytest.param(page, block, id=f"{page}-{number}")
    for page in ("README.md", "README.zh-CN.md", "docs/install.md", "docs/providers.md", "docs/reference.md")
    for number, block in enumerate(re.findall(r"```toml\n(.*?)```", (ROOT / page).read_text(), re.DOTALL))
]


@pytest.mark.parametrize(("page", "block"), BLOCKS)
def test_every_configuration_shown_is_taken(page: str, block: str) -> None:
    config = parse(block, page)
    assert isinstance(config, Config)
    assert config.provider


PAGES = (
    "README.md",
    "docs/install.md",
    "docs/operating.md",
    "docs/providers.md",
    "docs/security.md",
    "docs/troubleshooting.md",
)
COMMANDS = [
    pytest.param(line, id=f"{page}: {line}")
    for page in PAGES
    for block in re.findall(r"```sh\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)
    for line in block.splitlines()
    if re.match(r"(sudo )?dumbwaiter ", line) and "--version" not in line
]


def _words(line: str) -> list[str]:
    return shlex.split(line.removeprefix("sudo ").partition(" | ")[0], comments=True)[1:]


@pytest.mark.parametrize("line", COMMANDS)
def test_every_command_shown_is_one(line: str) -> None:
    """It is read with its options, on any machine; end_to_end/test_pages.py types it, where a machine can be booted."""
    words = _words(line)
    command: click.Command = cli
    context: click.Context | None = None
    while isinstance(command, click.Group):
        group = command.make_context(words[0], [*words], parent=context, resilient_parsing=True)
        words = [*group._protected_args, *group.args]  # without the options in front
        found = command.get_command(click.Context(command), words[0])
        assert found is not None, f"no command {words[0]}"
        command, words = found, words[1:]
    with click.Context(cli, obj=type("Session", (), {"json": False})()) as context:
        command.make_context(str(command.name), words, parent=context)


def test_every_link_between_the_pages_leads_somewhere() -> None:
    for page in (*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), ROOT / "fs/SEMANTICS.md"):
        for target, _, anchor in re.findall(r"\]\(((?!\w+:)[^)#]*)(#([^)]*))?\)", page.read_text()):
            there = page.parent / target if target else page
            assert there.is_file(), f"{page.name}: {target}"
            heads = re.findall(r"^#+ (.*)$", there.read_text(), re.MULTILINE)
            assert not anchor or anchor in {
                re.sub(r"[^\w\- ]", "", head).replace(" ", "-").lower() for head in heads
            }, f"{page.name}: {target}#{anchor}"


# What a person has to act upon, and what is logged as a warning or an error.
SENTENCES = {"Failure", "NoDaemon", "JournalTrouble", "Reject", "Conflict", "Blocked", "failure", "warning", "error"}
TELLING = {"lacks"}  # functions that say what `failed` lists
SOURCES = [
    ast.parse(path.read_text())
    for folder in ("daemon/dumbwaiter", "fs/dumbwaiter_fs")
    for path in sorted((ROOT / folder).rglob("*.py"))
]


def fixed(text: str) -> str:
    """Returns a sentence with a "…" for whatever differs from case to case."""
    return re.sub(r"…+", "…", re.sub(r"\{\w+\}", "…", " ".join(text.replace("`", "").split())))


def sentences(node: ast.AST) -> Iterator[str]:
    """Yields what an expression can say, as far as it stands there in words."""
    match node:
        case ast.Constant(value=str(text)):
            yield fixed(text)
        case ast.JoinedStr(values=parts):
            yield fixed("".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in parts))
        case ast.IfExp(body=one, orelse=other):
            yield from sentences(one)
            yield from sentences(other)


def _raised() -> set[str]:
    calls = [node for source in SOURCES for node in ast.walk(source) if isinstance(node, ast.Call) and node.args]
    named = [one for one in calls if getattr(one.func, "id", getattr(one.func, "attr", "")) in SENTENCES]
    said = [argument for one in named for argument in one.args]
    said += [one.value for told in _telling() for one in ast.walk(told) if isinstance(one, ast.Return) and one.value]
    return {text for one in said for text in sentences(one) if re.search(r"\w\w", text)}


def _telling() -> list[ast.FunctionDef]:
    nodes = [node for source in SOURCES for node in ast.walk(source)]
    return [node for node in nodes if isinstance(node, ast.FunctionDef) and node.name in TELLING]


def _explained() -> set[str]:
    page = (ROOT / "docs/troubleshooting.md").read_text()
    cells = re.findall(r"^\| (`.*?`) \|", page, re.MULTILINE)
    return {fixed(sentence) for cell in cells for sentence in cell.split("<br>")}


def test_every_sentence_that_asks_for_a_person_is_explained() -> None:
    missing = _raised() - _explained()
    assert not missing, "docs/troubleshooting.md wants a row for:\n" + "\n".join(sorted(missing))


def test_every_fact_that_asks_for_a_person_is_explained() -> None:
    page = (ROOT / "docs/reference.md").read_text()
    words = [node.value for told in _telling() for node in ast.walk(told) if isinstance(node, ast.Constant)]
    names = {word for word in words if isinstance(word, str) and re.fullmatch(r"[a-z]+(_[a-z]+|Status|Message)", word)}
    assert names
    assert names | {"callback", "registered"} <= set(re.findall(r"`(\w+)`", page))


def test_every_field_that_json_shows_of_the_work_is_in_the_reference() -> None:
    page = (ROOT / "docs/reference.md").read_text().partition("`status --json`:")[2].partition("Facts that say")[0]
    shown = [node for source in SOURCES for node in ast.walk(source) if isinstance(node, ast.FunctionDef)]
    shown = [
        node for node in shown if node.name in {"work_to_list", "_outlook"} or re.fullmatch(r"[a-z]+_facts", node.name)
    ]
    keys = {
        key.value
        for function in shown
        for node in ast.walk(function)
        if isinstance(node, ast.Dict)
        for key in node.keys
        if isinstance(key, ast.Constant)
    }
    assert {"id", "next_at"} <= keys
    assert keys <= set(re.findall(r"\w+", page))


def spoken() -> set[str]:
    """Returns every text that stands anywhere in the program."""
    return {text for source in SOURCES for node in ast.walk(source) for text in sentences(node)}


def test_every_sentence_explained_is_one_of_the_program() -> None:
    stale = _explained() - spoken()
    assert not stale, "docs/troubleshooting.md has rows that nothing says:\n" + "\n".join(sorted(stale))


def test_every_broker_has_its_place_in_the_pages() -> None:
    shown = {
        provider.__struct_config__.tag
        for page in ("docs/providers.md", "docs/recipes.md")
        for block in re.findall(r"```toml\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)
        if "[provider.NAME]" not in block
        for provider in parse(block, page).provider.values()
    }
    assert shown == set(PROVIDERS)


def test_the_reference_names_every_call_and_every_fault_of_the_sandbox() -> None:
    page = (ROOT / "docs/reference.md").read_text().partition("## Sandbox and demo")[2]
    rows = [
        [re.findall(r"`([^`]+)`", cell) for cell in row.split("|")[1:4]]
        for row in page.splitlines()
        if row[:3] == "| `"
    ]
    known = catalogue(VENDORS)
    assert {f"{service}.{call}" for services, calls, _ in rows for service in services for call in calls} == known.calls
    for services, calls, faults in rows:
        own = {f"{service}.{call}" for service in services for call in calls}
        assert set(faults) == {fault for fault, places in known.special.items() if own.intersection(places)}, services
    assert all(re.search(f"`(SERVICE.\\*:)?{fault}(=RATE)?`", page) for fault in GENERAL)


def test_the_page_of_benchmarks_says_what_was_measured() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench.page", "--check"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
