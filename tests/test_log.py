"""The log: readable, complete, and without a secret in it."""

import io
import itertools
import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest
import structlog

from dumbwaiter import log, streams
from leaks import LEAKS


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    """Puts logging back as it was."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    others = {
        name: logging.getLogger(name).level
        for name in ("httpx", "httpcore", "apscheduler", "uvicorn", "asyncio", "watchdog", "alembic")
    }
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    for name, number in others.items():
        logging.getLogger(name).setLevel(number)
    structlog.reset_defaults()


@pytest.fixture
def lines() -> Callable[[], list[dict[str, object]]]:
    stream = io.StringIO()
    log.configure("debug", "json", stream)

    def read() -> list[dict[str, object]]:
        return [json.loads(line) for line in stream.getvalue().splitlines()]

    return read


@pytest.mark.parametrize("text", LEAKS)
def test_no_way_into_the_log_lets_a_secret_through(text: str, lines: Callable[[], list[dict[str, object]]]) -> None:
    logger = log.get("test")
    logger.info("said", text=text, deep={"list": [text]})
    logger.bind(text=text).warning(text)
    logging.getLogger("httpx").warning("HTTP Request: %s", text)
    try:
        raise RuntimeError(text)
    except RuntimeError:
        logger.exception("failed")
        logging.getLogger("other").exception("failed")
    written = lines()
    assert len(written) == 5
    assert "s3cret" not in json.dumps(written)


def test_a_line_is_json_with_its_fields(lines: Callable[[], list[dict[str, object]]]) -> None:
    log.get("test").bind(job=7).info("chunk stored", offset=4, path="a/电影.mov")
    (line,) = lines()
    assert {key: line[key] for key in ("event", "level", "job", "offset", "path")} == {
        "event": "chunk stored",
        "level": "info",
        "job": 7,
        "offset": 4,
        "path": "a/电影.mov",
    }
    assert str(line["timestamp"]).endswith("Z")


ODD = "raw\udcff \x1b[2J\n end"


def test_names_that_no_stream_takes_are_written_all_the_same(tmp_path: object) -> None:
    """A line that cannot be encoded would be lost, and with it what went wrong with that very file."""
    raw = io.BytesIO()
    log.configure("debug", "json", io.TextIOWrapper(raw, encoding="utf-8", write_through=True))
    log.get("test").info("seen", path=ODD)
    log.get("test").info(f"seen {ODD}")
    log.get("test").info("seen", paths=[ODD])
    logging.getLogger("other").warning("seen %s", ODD)
    written = [json.loads(line) for line in raw.getvalue().splitlines()]
    assert len(written) == 4
    assert written[0]["path"] == "raw\\xff \\x1b[2J\\x0a end"


def test_the_console_shows_no_escape_sequence_of_a_name() -> None:
    stream = io.StringIO()
    log.configure("info", "console", stream)
    log.get("test").info("seen", path="\x1b[2J")
    assert "\x1b[2J" not in stream.getvalue()
    assert "\\x1b[2J" in stream.getvalue()


def test_a_traceback_names_no_locals(lines: Callable[[], list[dict[str, object]]]) -> None:
    hidden = "a value that stands in a local variable"
    try:
        raise RuntimeError(hidden[:2])
    except RuntimeError:
        log.get("test").exception("failed")
    (line,) = lines()
    assert hidden not in str(line["exception"])
    assert "RuntimeError" in str(line["exception"])


class Broken(io.StringIO):
    def write(self, text: str) -> int:
        raise OSError(28, "No space left on device")


def test_a_log_call_never_fails() -> None:
    log.configure("debug", "json", Broken())
    log.get("test").error("lost", number=1)
    logging.getLogger("other").error("lost %d", 1)


@pytest.mark.parametrize("patient", [True, False])
def test_systemds_journal_is_told_how_grave_a_line_is(monkeypatch: pytest.MonkeyPatch, *, patient: bool) -> None:
    inlet, outlet = os.pipe()
    with open(inlet, encoding="utf-8") as read, open(outlet, "w", encoding="utf-8") as stream:
        status = os.fstat(outlet)
        monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino}")
        monkeypatch.setattr(sys, "stderr", stream)
        log.configure("debug", "json", stream, patient=patient)
        log.get("a").debug("said")
        log.get("a").info("said")
        logging.getLogger("b").warning("said")
        try:
            raise ValueError
        except ValueError:
            log.get("a").exception("said")
        logging.getLogger("b").critical("said")
        log.flush()
        streams.failed("at an end")
        stream.flush()
        marks = [line[:4] for line in itertools.islice(read, 6)]
    assert marks == ["<7>{", "<6>{", "<4>{", "<3>{", "<2>{", "<3>d"]


def test_other_streams_get_no_mark_of_the_journals(
    monkeypatch: pytest.MonkeyPatch, lines: Callable[[], list[dict[str, object]]], capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("JOURNAL_STREAM", "9:1")
    log.get("a").error("said")
    streams.failed("at an end")
    assert [line["event"] for line in lines()] == ["said"]
    assert capsys.readouterr().err == "dumbwaiter: at an end\n"


def test_nobody_waits_for_a_reader_that_stands_still() -> None:
    reading, writing = os.pipe()
    with open(writing, "w") as pipe:
        log.configure("error", stream=pipe, patient=False)
        for number in range(3 * log.KEPT):
            log.get("here").error("a line as long as many", number=number)
        logging.getLogger("other").error("and one of a library's")
        told = b""
        while b"lines were left out" not in told:
            told += os.read(reading, 1 << 20)
        os.close(reading)
    events = [json.loads(line) for line in told.splitlines() if line.endswith(b"}")]
    numbers = [event["number"] for event in events if "number" in event]
    assert numbers[: log.KEPT] == list(range(log.KEPT))
    assert len(numbers) + events[-1]["lines"] == 3 * log.KEPT + 1


def test_a_pipe_that_does_not_block_gets_every_line_in_its_time() -> None:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with open(writing, "w") as pipe:
        log.configure(stream=pipe, patient=False)
        for number in range(log.KEPT // 2):
            log.get("here").info("a line as long as many", number=number)
        told = b""
        while told.count(b"\n") < log.KEPT // 2:
            told += os.read(reading, 1 << 16)
        os.close(reading)
    assert [json.loads(line)["number"] for line in told.splitlines()] == list(range(log.KEPT // 2))


def test_the_last_lines_are_waited_for() -> None:
    reading, writing = os.pipe()
    with open(writing, "w") as pipe:
        log.configure(stream=pipe, patient=False)
        log.get("here").info("the last one")
        log.flush()
        os.set_blocking(reading, False)
        assert b"the last one" in os.read(reading, 1 << 16)
        os.close(reading)


def test_the_level_is_kept_and_libraries_speak_of_trouble_only() -> None:
    stream = io.StringIO()
    log.configure("info", "json", stream)
    log.get("test").debug("quiet")
    logging.getLogger("httpx").info("HTTP Request: GET http://x/?token=1")
    logging.getLogger("apscheduler.executors").info("Running job")
    logging.getLogger("apscheduler.scheduler").warning('Execution of job "tidy" skipped')
    assert stream.getvalue() == ""
    log.configure("error", "json", stream)
    log.get("test").warning("quiet")
    logging.getLogger("httpx").warning("quiet")
    assert stream.getvalue() == ""
    log.get("test").error("loud")
    assert "loud" in stream.getvalue()


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_gets_a_console_and_a_file_gets_json() -> None:
    for stream, braces in ((Terminal(), False), (io.StringIO(), True)):
        log.configure("info", "auto", stream)
        log.get("test").info("hello")
        assert stream.getvalue().startswith("{") is braces


@pytest.mark.parametrize(("value", "coloured"), [(None, True), ("", True), ("1", False)])
def test_a_terminal_gets_no_colours_where_they_are_not_wanted(
    monkeypatch: pytest.MonkeyPatch, value: str | None, coloured: bool
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    if value is not None:
        monkeypatch.setenv("NO_COLOR", value)
    stream = Terminal()
    log.configure("info", "console", stream)
    log.get("test").info("hello")
    assert ("\x1b[" in stream.getvalue()) is coloured


def test_no_process_loads_what_draws_before_it_draws() -> None:
    program = "import sys, dumbwaiter.app; assert not {'rich', 'pygments'} & set(sys.modules); import rich"
    subprocess.run([sys.executable, "-c", program], check=True)
