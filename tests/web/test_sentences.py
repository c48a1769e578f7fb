"""What the daemon says on the page, the page can say in Chinese."""

import ast
import errno
import json
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from playwright.sync_api import Browser

from dumbwaiter import errors
from test_docs import ROOT, sentences, spoken

FOLDER = ROOT / "daemon/dumbwaiter"
STATIC = FOLDER / "web/static"
SOURCES = {path.relative_to(FOLDER): ast.parse(path.read_text()) for path in sorted(FOLDER.rglob("*.py"))}
# What carries a sentence to the page: verdicts, and what became of errands and the journal.
CARRIERS = {name for name, one in vars(errors).items() if isinstance(one, type) and issubclass(one, errors.Verdict)}
CARRIERS |= {"JournalTrouble", "Undone", "Untold", "Inside", "_Missing"}
ANSWERS = {Path(name) for name in ("addresses.py", "app.py", "steering.py")}  # whose `Failure` a button may meet
RETURN = {"_sentence", "_missing", "_no_module", "away", "held", "lacks", "trouble"}  # functions
HOLD = {"_deaf", "away", "sentence", "REFUSED", "ACCOUNT", "_REASONS"}  # variables, and tables of parts
TABLE = re.findall(r"^  (\[\".*\]),$", (STATIC / "sentences.js").read_text(), re.MULTILINE)
CHINESE: dict[str, str] = dict(json.loads(row) for row in TABLE)
# What other programs say: SQLite in its errors, systems in theirs (`os.strerror` has more of them than are translated).
ELSEWHERE = {"disk i/o error"} | {os.strerror(number).lower() for number in errno.errorcode}


def _said(source: ast.Module, carriers: set[str]) -> Iterator[str]:
    """Yields what a module can put on the page, as far as it stands there in words."""
    named: dict[str, list[ast.expr]] = {}
    for node in ast.walk(source):
        match node:
            case (
                ast.Assign(targets=[ast.Name(id=name) | ast.Attribute(attr=name)], value=value)
                | ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value)
            ):
                named.setdefault(name, []).append(value)
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) if name in RETURN:
                ends = [one.value for one in ast.walk(node) if isinstance(one, ast.Return)]
                parts = [part for end in ends for part in (end.elts if isinstance(end, ast.Tuple) else [end])]
                yield from (text for part in parts if part is not None for text in sentences(part))
            case ast.keyword(arg="error", value=value):
                yield from sentences(value)
    for node in ast.walk(source):
        if isinstance(node, ast.Call) and node.args and getattr(node.func, "id", "") in carriers:
            first = node.args[0]
            for value in named.get(first.id, []) if isinstance(first, ast.Name) else [first]:
                yield from sentences(value)
    for value in (value for name in HOLD for value in named.get(name, [])):
        held = ast.walk(value) if isinstance(value, ast.Dict | ast.Tuple) else [value]
        yield from (text for one in held for text in sentences(one))


def met() -> set[str]:
    """Returns every sentence that can stand on the page and every part of one, with "…" for what differs."""
    found: set[str] = set()
    for path, source in SOURCES.items():
        if path.parts[0] != "cli":
            found |= set(_said(source, CARRIERS | ({"Failure"} if path in ANSWERS else set())))
    return {text for text in found if re.search(r"[a-z]{2}", text) and " " in text and not re.search("[一-鿿]", text)}


def test_every_sentence_that_can_stand_on_the_page_is_there_in_chinese() -> None:
    missing = met() - set(CHINESE)
    assert not missing, "sentences.js wants a row for:\n" + "\n".join(sorted(missing))


def test_nothing_is_there_in_chinese_that_nobody_says() -> None:
    stale = set(CHINESE) - met() - spoken() - ELSEWHERE
    assert not stale, "sentences.js has rows that nothing says:\n" + "\n".join(sorted(stale))


BLANK = re.compile(r"\{…\??\}|…")


def _filled(english: str, chinese: str, plain: str) -> tuple[str, str]:
    """Returns a row with its blanks filled in: those for sentences with one, all others with `plain`."""
    held = {
        "…": (plain, plain),
        "{…}": ("has frozen the account", "冻结了这个账号"),
        "{…?}": ("Permission denied", "没有权限"),
    }
    kinds = BLANK.findall(chinese)
    pairs = [held[kind] for kind in kinds]
    assert len(kinds) == english.count("…"), english
    return (
        "".join(
            one for pair in zip(english.split("…"), [pair[0] for pair in pairs] + [""], strict=True) for one in pair
        ),
        "".join(
            one for pair in zip(BLANK.split(chinese), [pair[1] for pair in pairs] + [""], strict=True) for one in pair
        ),
    )


def test_the_page_finds_each_sentence_whatever_its_blanks_hold(browser: Browser) -> None:
    page = browser.new_page()
    page.route("http://page/*", lambda route: route.fulfill(path=STATIC / Path(route.request.url).name))
    page.route("http://page/", lambda route: route.fulfill(body="<!doctype html>", content_type="text/html"))
    page.goto("http://page/")

    def said(texts: Iterable[str]) -> list[str | None]:
        find = "async (all) => { const { inChinese } = await import('/sentences.js'); return all.map(inChinese); }"
        found: list[str | None] = page.evaluate(find, list(texts))
        return found

    for plain in ("film.mov", "no; read (7)"):
        rows = dict(_filled(english, chinese, plain) for english, chinese in CHINESE.items())
        assert dict(zip(rows, said(rows), strict=True)) == rows
    remarks = {
        "Jiandaoyun refuses the key: check api_key (code 8301: no)": "简道云不认这个密钥：请检查 api_key（代码 8301: no）",
        "Qiniu has frozen the account: no": "七牛冻结了这个账号: no",
        "/drop: no such file or directory; its files wait.": "/drop：没有那个文件或文件夹；其中的文件在等待。",
    }
    assert said(remarks) == list(remarks.values())
    assert said(["film.mov", "a: b", "Qiniu says something new", "NetEase as well (code 7)"]) == [None] * 4
