"""docs/torture.md names tests that there are, and says where they run."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ROW = re.compile(r"\| (T\d\d)? \| (.*) \| `(\S+)` \| (\S+|`make \w+`) \|")
WHERE = {(True, False): "`make test`", (False, True): "`make torture`", (True, True): "both"}


@pytest.fixture(scope="module")
def rows() -> list[tuple[str, str, str, str]]:
    return ROW.findall((ROOT / "docs/torture.md").read_text())


def collected(expression: str, files: list[str]) -> set[str]:
    command = ("-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", "-m", expression, *files)
    done = subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode in {0, 5}, done.stdout[-2000:]
    return {line.partition("[")[0].removeprefix("tests/") for line in done.stdout.splitlines() if "::" in line}


def test_every_test_on_the_page_is_collected_and_runs_where_it_says(rows: list[tuple[str, str, str, str]]) -> None:
    files = sorted({f"tests/{test.partition('::')[0]}" for _, _, test, _ in rows})
    often, seldom = collected("not torture", files), collected("torture", files)
    said = {test: where for _, _, test, where in rows}
    assert said == {test: WHERE.get((test in often, test in seldom), "nowhere") for test in said}


def test_every_item_stands_on_the_page_once_with_what_is_provoked(rows: list[tuple[str, str, str, str]]) -> None:
    assert [item for item, _, _, _ in rows if item] == [f"T{number:02}" for number in range(1, 31)]
    assert all(bool(item) == bool(what) for item, what, _, _ in rows)


def test_every_line_of_the_table_is_read(rows: list[tuple[str, str, str, str]]) -> None:
    table = (ROOT / "docs/torture.md").read_text().partition("| --- |")[2].splitlines()[1:]
    assert len(rows) == len([line for line in table if line])
