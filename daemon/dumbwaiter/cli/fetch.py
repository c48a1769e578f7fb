"""The bytes of catalogued files, and what a provider says of them: for `cat` and `verify`."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import BinaryIO, NamedTuple

import httpx

from dumbwaiter.catalog import Waiting
from dumbwaiter.config import Config
from dumbwaiter.errors import Changed, Exit, Failure, Verdict
from dumbwaiter.files.digest import Digest
from dumbwaiter.files.version import check, open_version
from dumbwaiter.model import MIB, Entry
from dumbwaiter.naming import join, shown
from dumbwaiter.net.http import HEADERS, proxies
from dumbwaiter.net.http_errors import sentence

LIMITS = httpx.Timeout(10.0)  # of silence, in seconds: somebody waits, and the mount has no more patience
REFUSED = {401, 403}
MISSING = {404, 410}
SILENT = "the provider does not answer"
LATER = {408, 425, 429, *range(500, 600)}
USELESS = (httpx.InvalidURL, httpx.UnsupportedProtocol, UnicodeError)  # the last of a host like a..b


class Refused(Exception):
    """The provider does not take this link, or no longer."""


class Silent(Failure):
    """The provider takes the connection, or not even that, and says nothing."""


class Seen(NamedTuple):
    """What a provider shows at a link."""

    size: int | None  # None: it does not say
    etag: str = ""
    digest: str | None = None  # as the journal keeps it, where the bytes were read


def fetch(config: Config, entry: Entry, address: Callable[[Entry, str | None], str], out: BinaryIO) -> None:
    """Writes the file to `out`. Raises `Failure` when not every byte of this version can be had."""
    if original(config, entry, out):
        return
    url = address(entry, None)
    try:
        _download(entry, url, out)
    except Refused:
        try:
            _download(entry, address(entry, url), out)
        except Refused:
            raise Failure(f"{shown(entry.place)}: the provider does not let it be read", Exit.ACCOUNT) from None


def original(config: Config, file: Entry | Waiting, out: BinaryIO) -> bool:
    """Writes the local file to `out`; False, and nothing is written, where it is gone or another version.

    Raises `Failure` when it becomes another one meanwhile.
    """
    root = config.folder_of(file.watch)
    if root is None:
        return False
    try:
        fd = open_version(root, file.path, file.stamp)
    except Verdict:
        return False
    with os.fdopen(fd, "rb", buffering=0) as source:
        try:
            while piece := source.read(MIB):
                check(fd, file.stamp)  # what was read is this version's
                _write(out, piece)
            check(fd, file.stamp)
        except Changed:
            raise Failure(
                f"{shown(join(file.watch, file.path))} was changed while it was read", Exit.TEMPORARY
            ) from None
    return True


def _write(out: BinaryIO, piece: bytes) -> None:
    try:
        out.write(piece)
    except BrokenPipeError:  # whoever reads wants no more
        raise
    except OSError as error:
        raise Failure(f"the output cannot be written: {error.strerror}") from None


def _client() -> httpx.Client:
    context = httpx.create_ssl_context()
    mounts = proxies(partial(httpx.HTTPTransport, verify=context))
    return httpx.Client(verify=context, timeout=LIMITS, headers=HEADERS, mounts=mounts, trust_env=False)


def _answers(place: str, status: int) -> Failure:
    return Failure(f"{place}the provider answers {status}", Exit.TEMPORARY if status in LATER else Exit.FAILED)


def _broken(place: str, error: Exception, url: str) -> Failure:
    """Returns what to say of an exchange that failed; of a link that no request can use, not that trying again may do."""
    if isinstance(error, USELESS):
        return Failure(f"{place}its link is no usable address")
    return Failure(f"{place}{sentence(error, url)}", Exit.TEMPORARY)


def _download(entry: Entry, url: str, out: BinaryIO) -> None:
    place, count = shown(entry.place), 0
    try:
        with _client() as client, client.stream("GET", url) as response:
            if response.status_code in REFUSED:
                raise Refused
            if response.status_code != httpx.codes.OK:
                raise _answers(f"{place}: ", response.status_code)
            # A proxy's page in the file's place is not to be written as the file.
            if response.headers.get("content-length", str(entry.size)) != str(entry.size):
                told = response.headers["content-length"]
                raise Failure(f"{place}: the provider has {told} bytes there, not {entry.size}", Exit.TEMPORARY)
            for piece in response.iter_raw(MIB):
                _write(out, piece)
                count += len(piece)
                if count > entry.size:
                    break
    except httpx.TimeoutException:
        raise Silent(f"{place}: {SILENT}", Exit.TEMPORARY) from None
    except (httpx.HTTPError, *USELESS) as error:
        raise _broken(f"{place}: ", error, url) from None
    if count != entry.size:
        raise Failure(f"{place}: {count} bytes came, {entry.size} are there", Exit.TEMPORARY)


class Reader:
    """Looks at links; any thread may. Raises `Refused`, and `Failure` when a provider cannot be asked now."""

    def __init__(self) -> None:
        self._client = _client()

    def close(self) -> None:
        self._client.close()

    def glance(self, url: str) -> Seen | None:
        """Returns what is at a link, None when nothing is, without its bytes."""
        with self._answer("HEAD", url) as response:
            if response.status_code in MISSING:
                return None
            if response.is_success and "content-length" in response.headers:
                return _seen(response, response.headers["content-length"])
        # A link may be signed for GET alone, and not every server knows HEAD.
        with self._answer("GET", url, range="bytes=0-0") as response:
            self._check(response, allowed=(httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE,))
            if response.status_code in MISSING:
                return None
            whole = response.headers.get("content-range", "").rpartition("/")[2]
            return _seen(response, whole or response.headers.get("content-length", ""))

    def read_back(self, url: str, most: int) -> Seen | None:
        """Returns size and digest of the bytes at a link, of no more than `most`; None when nothing is there."""
        count, digest = 0, Digest()
        with self._answer("GET", url) as response:
            self._check(response)
            if response.status_code in MISSING:
                return None
            for piece in response.iter_raw(MIB):
                digest.observe(count, piece)
                count += len(piece)
                if count > most:
                    return _seen(response, str(count))
            return _seen(response, str(count))._replace(digest=digest.text(count))

    @contextmanager
    def _answer(self, method: str, url: str, **headers: str) -> Iterator[httpx.Response]:
        try:
            with self._client.stream(method, url, headers=headers) as response:
                yield response
        except httpx.TimeoutException:
            raise Silent(SILENT, Exit.TEMPORARY) from None
        except (httpx.HTTPError, *USELESS) as error:
            raise _broken("", error, url) from None

    def _check(self, response: httpx.Response, allowed: tuple[int, ...] = ()) -> None:
        status = response.status_code
        if status in REFUSED:
            raise Refused
        if not (response.is_success or status in MISSING or status in allowed):
            raise _answers("", status)


def _seen(response: httpx.Response, size: str) -> Seen:
    return Seen(int(size) if size.isdecimal() else None, response.headers.get("etag", ""))
