"""Logging: structlog, and the standard library's loggers beside it; redaction is the last step of both.

A console for people on a terminal, JSON lines otherwise. Events are constant phrases with fields; the engine binds
job, path and provider once. What looks like a token, a signature or a password is let through in no message, whoever
wrote it.
"""

import json
import logging
import os
import select
import stat
import sys
import threading
from collections.abc import MutableMapping
from contextlib import suppress
from queue import SimpleQueue
from typing import Any, Literal, TextIO

import msgspec

from dumbwaiter.naming import shown
from dumbwaiter.redaction import redact
from dumbwaiter.streams import in_journal

if "rich" in sys.modules:
    import structlog
else:  # structlog would load it, for tracebacks in colour
    sys.modules["rich"] = None  # type: ignore[assignment]
    import structlog

    del sys.modules["rich"]

KEPT = 4096  # lines for a reader that stands still
LAST = 1.0  # seconds for the last lines


def _clean(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Makes every field printable: names may hold bytes that no stream takes."""
    for key, value in event.items():
        if isinstance(value, str) and key != "event":
            event[key] = shown(value)
    return event


def _json(event: Any, **options: Any) -> str:
    try:
        return msgspec.json.encode(event, enc_hook=repr).decode()
    except UnicodeEncodeError:  # half a character somewhere
        return json.dumps(event, ensure_ascii=False, **options)


def _redacted(_logger: Any, _method: str, line: Any) -> str:
    # Half a character in a name must not cost the line.
    return redact(str(line)).encode("utf-8", "backslashreplace").decode()


def configure(
    level: str = "info",
    form: Literal["auto", "console", "json"] = "auto",
    stream: TextIO | None = None,
    *,
    patient: bool = True,
) -> None:
    """Sets up logging for the process. Log lines go to `stream`, standard error by default.

    With `patient` a log call waits until the stream takes its line; else nobody waits for a reader that stands still, and
    lines beyond a number that is kept for it are left out and counted.
    """
    stream = stream or sys.stderr
    lines = _Lines(stream) if patient or _is_file(stream) else _LinesAside(stream.fileno())
    if in_journal(stream):
        lines = _LinesOfJournal(lines)
    console = form == "console" or (form == "auto" and stream.isatty())
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="%H:%M:%S" if console else "iso", utc=not console),
        _clean,
    ]
    if not console:
        shared.append(structlog.processors.ExceptionRenderer())  # no locals: they may hold secrets
    last = (_console(stream) if console else structlog.processors.JSONRenderer(serializer=_json), _redacted)
    structlog.configure(
        processors=[*shared, *last],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=lambda *_name: lines,
        cache_logger_on_first_use=False,
    )
    handler = _Handler(lines)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for noisy in ("httpx", "httpcore", "asyncio", "watchdog", "alembic"):
        logging.getLogger(noisy).setLevel(max(logging.WARNING, root.level))
    logging.getLogger("asyncio").addFilter(_is_new)
    # The one warns of each run that it leaves out because the last one goes on, which is as it should be; the other of
    # each request that it cannot read, and any site that is open in the browser can send those to the page.
    for noisier in ("apscheduler", "uvicorn"):
        logging.getLogger(noisier).setLevel(max(logging.ERROR, root.level))


def _is_new(record: logging.LogRecord) -> bool:
    """Leaves out what asyncio says each second while nobody can be let in; who listens has told it once."""
    return "out of system resource" not in record.getMessage()


def _console(stream: TextIO) -> structlog.dev.ConsoleRenderer:
    return structlog.dev.ConsoleRenderer(
        colors=stream.isatty() and not os.environ.get("NO_COLOR"),
        exception_formatter=structlog.dev.plain_traceback,
        sort_keys=False,
    )


def flush() -> None:
    """Waits a little until all that was logged is written. `logging` does so at an orderly end."""
    for handler in logging.getLogger().handlers:
        handler.flush()


class _Lines:
    """Writes lines. It never lets a log call fail: a full disk or a closed terminal is no reason to stop an upload."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def msg(self, line: str) -> None:
        with suppress(OSError, ValueError):
            self._stream.write(f"{line}\n")
            self._stream.flush()

    def flush(self) -> None:
        """Returns when they are written; a little later where nobody takes them."""

    def debug(self, line: str) -> None:
        self.msg(line)  # whatever a subclass makes of it

    info = warning = error = critical = debug


class _LinesAside(_Lines):
    """Writes them on a thread of its own: a pipe that nobody reads, or a terminal that was told to stop, takes none."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._queue: SimpleQueue[bytes] = SimpleQueue()
        self._left_out = 0
        self._written = threading.Condition()
        self._waiting = 0
        threading.Thread(target=self._write_on, name="log", daemon=True).start()

    def msg(self, line: str) -> None:
        with self._written:
            if self._waiting >= KEPT:
                self._left_out += 1
                return
            self._waiting += 1
        self._queue.put(f"{line}\n".encode(errors="backslashreplace"))

    def _write_on(self) -> None:
        while True:
            self._write(self._queue.get())
            with self._written:
                self._waiting -= 1
                left_out = self._left_out if self._waiting < KEPT // 2 else 0
                self._left_out -= left_out
                self._written.notify_all()
            if left_out:  # an error, so that every level tells of it
                get("log").error("lines were left out, as nobody took them", lines=left_out)

    def _write(self, line: bytes) -> None:
        rest = memoryview(line)
        with suppress(OSError):
            while rest:
                try:
                    # Past Python's own buffer, whose lock would keep the program from its end.
                    rest = rest[os.write(self._descriptor, rest) :]
                except BlockingIOError:
                    look = select.poll()
                    look.register(self._descriptor, select.POLLOUT)
                    look.poll()

    def flush(self) -> None:
        with self._written:
            self._written.wait_for(lambda: not self._waiting, LAST)


class _LinesOfJournal(_Lines):
    """Says before each line how grave it is, as systemd's journal understands it."""

    def __init__(self, lines: _Lines) -> None:
        self._lines = lines

    def msg(self, line: str) -> None:
        self._lines.msg(line)

    def flush(self) -> None:
        self._lines.flush()

    def debug(self, line: str) -> None:
        self.msg(f"<7>{line}")

    def info(self, line: str) -> None:
        self.msg(f"<6>{line}")

    def warning(self, line: str) -> None:
        self.msg(f"<4>{line}")

    def error(self, line: str) -> None:
        self.msg(f"<3>{line}")

    def critical(self, line: str) -> None:
        self.msg(f"<2>{line}")


def _is_file(stream: TextIO) -> bool:
    try:
        return stat.S_ISREG(os.fstat(stream.fileno()).st_mode)
    except (OSError, ValueError):  # it has no descriptor
        return True


class _Handler(logging.Handler):
    """What other libraries log; and who flushes, flushes our own lines too."""

    def __init__(self, lines: _Lines) -> None:
        super().__init__()
        self._lines = lines

    def flush(self) -> None:
        self._lines.flush()

    def emit(self, record: logging.LogRecord) -> None:
        with suppress(Exception):  # a line of theirs that cannot be rendered is no reason either
            write = getattr(self._lines, record.levelname.lower(), self._lines.msg)  # a level may be anybody's
            write(self.format(record))


def get(name: str) -> Any:
    """Returns a logger; `bind` adds fields that every line of a piece of work carries."""
    return structlog.get_logger(name)
