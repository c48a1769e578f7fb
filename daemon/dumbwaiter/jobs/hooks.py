"""Telling others what became of a file: a program with arguments, or a signed request. One call, one try.

A program is started without a shell, in a process group of its own that ends with its time. A request is signed as the
specification "Standard Webhooks" says (standardwebhooks.com), for which receivers find libraries in every language.
"""

import asyncio
import base64
import contextlib
import hmac
import os
import signal
import time
from collections.abc import Collection, Mapping, Sequence

import msgspec

from dumbwaiter.config import Hook
from dumbwaiter.config.values import SecretSource, signing_key
from dumbwaiter.errors import Failure, Retry, Undone
from dumbwaiter.model import Secret
from dumbwaiter.naming import shown
from dumbwaiter.net.http import Http
from dumbwaiter.redaction import redact
from dumbwaiter.wire.message import Request
from dumbwaiter.wire.recipe import fill

TOLD = 500  # characters of what a program said
GRACE = 2.0  # seconds between asking a program to end and ending it
PAUSE = 0.05  # seconds between looks whether somebody of it is left
LATER = 75  # the exit code EX_TEMPFAIL: try again
WITHHELD = (
    "PGPASSWORD",
    "NOTIFY_SOCKET",
    "WATCHDOG_USEC",
    "WATCHDOG_PID",
    "CREDENTIALS_DIRECTORY",
    "LISTEN_FDS",
    "LISTEN_PID",
)


class Untold(Undone):
    """The call failed."""


class Teller:
    """Tells those whom hooks name. No program gets a variable that is `hidden`. All of it runs on the loop."""

    def __init__(self, http: Http, hidden: Collection[str]) -> None:
        self._http = http
        self._hidden = hidden
        self._reading: dict[SecretSource, asyncio.Future[Secret]] = {}

    async def tell(self, hook: Hook, facts: Mapping[str, str], id_: str, now: float) -> None:
        """Makes one call; `id_` is the same for every try. Raises `Untold`."""
        if hook.url is None:
            await _start(hook.command, facts, id_, hook.timeout, self._hidden)
            return
        assert hook.secret is not None
        secret = await self._read(hook.secret, hook.timeout)
        try:
            async with asyncio.timeout(hook.timeout):
                await _post(hook.url, secret, facts, id_, self._http, now)
        except TimeoutError:
            raise Untold(f"the webhook did not answer within {hook.timeout:g} seconds") from None

    async def _read(self, source: SecretSource, timeout: float) -> Secret:
        """Fetches a secret in a thread: a keyring may ask its owner, and a dead disk keeps that thread and no other."""
        if source not in self._reading:
            self._reading[source] = asyncio.get_running_loop().run_in_executor(None, source.read)
            self._reading[source].add_done_callback(lambda _: self._reading.pop(source))
        try:
            async with asyncio.timeout(timeout):
                return await asyncio.shield(self._reading[source])
        except TimeoutError:
            raise Untold(
                f"the secret of the webhook did not come within {timeout:g} seconds: is the keyring locked?"
            ) from None
        except Failure as failure:
            raise Untold(str(failure)) from None


async def _post(url: str, secret: Secret, facts: Mapping[str, str], id_: str, http: Http, now: float) -> None:
    body = msgspec.json.encode({"id": id_, **{name: shown(value) for name, value in facts.items()}})
    seconds = str(int(now))
    headers = {
        "content-type": "application/json",
        "webhook-id": id_,
        "webhook-timestamp": seconds,
        "webhook-signature": signature(secret, id_, seconds, body),
        "idempotency-key": id_,
    }
    try:
        reply = await http.call(Request("webhook", "POST", url, headers, body))
    except Retry as trouble:
        raise Untold(str(trouble)) from None
    if reply.status == 410:
        raise Untold("the webhook's address is gone (status 410)", hopeless=True)
    if reply.status // 100 != 2:
        raise Untold(f"the webhook answers {reply.status}")


def signature(secret: Secret, id_: str, seconds: str, body: bytes) -> str:
    """Returns the header that proves who sent a body, and when: HMAC-SHA256 over id, time and body."""
    digest = hmac.digest(signing_key(secret), f"{id_}.{seconds}.".encode() + body, "sha256")
    return f"v1,{base64.b64encode(digest).decode()}"


async def _start(
    command: Sequence[str], facts: Mapping[str, str], id_: str, timeout: float, hidden: Collection[str]
) -> None:
    words = [fill(word, facts) for word in command]
    environment = {name: value for name, value in os.environ.items() if name not in WITHHELD and name not in hidden}
    environment |= {f"DUMBWAITER_{name.upper()}": value for name, value in facts.items()} | {"DUMBWAITER_ID": id_}
    try:
        process, said = await _spawn(words, environment)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise Untold(f"{shown(words[0])} cannot be started: {reason}", hopeless=True) from None
    code = None
    try:
        async with asyncio.timeout(timeout):
            code = await process.wait()
    except TimeoutError:
        raise Untold(f"{shown(words[0])} took longer than {timeout:g} seconds", hopeless=True) from None
    finally:
        if code is None:
            await _end(process)
        await asyncio.wait({said}, timeout=0.2)  # a child it left behind may hold the pipe open
        said.cancel()
        await asyncio.gather(said, return_exceptions=True)
    if code:
        words_said = said.result() if said.done() and not said.cancelled() else ""
        what = f"ended with code {code}" if code > 0 else f"was ended by signal {-code}"
        raise Untold(f"{shown(words[0])} {what}{words_said and ': '}{words_said}", hopeless=code != LATER)


async def _spawn(
    words: Sequence[str], environment: Mapping[str, str]
) -> "tuple[asyncio.subprocess.Process, asyncio.Task[str]]":
    """Starts a program, and the task that comes to its last words once nobody can say any more."""
    ours, theirs = os.pipe()  # with one of asyncio's a program would not end before all that it left behind
    said = asyncio.create_task(_last_words(ours))
    try:
        process = await asyncio.create_subprocess_exec(
            *words,
            env=environment,
            cwd="/",
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=theirs,
            start_new_session=True,
        )
    finally:
        os.close(theirs)
    return process, said


async def _last_words(pipe: int) -> str:
    """Returns the end of what comes through a pipe, which it closes."""
    kept, reader = b"", asyncio.StreamReader()
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(pipe, "rb", 0)
    )
    with contextlib.closing(transport):
        while data := await reader.read(4096):
            kept = (kept + data)[-TOLD:]
    return redact(shown(kept.decode("utf-8", "replace").strip().rpartition("\n")[2]))


async def _end(process: asyncio.subprocess.Process) -> None:
    """Ends a program with all that it started, also where it has ended itself meanwhile."""
    end = time.monotonic() + GRACE
    with contextlib.suppress(ProcessLookupError, PermissionError):  # nobody is left, or nobody that we may end
        os.killpg(process.pid, signal.SIGTERM)
        while time.monotonic() < end:
            await asyncio.sleep(PAUSE)
            os.killpg(process.pid, 0)
        os.killpg(process.pid, signal.SIGKILL)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(GRACE):
            await process.wait()
