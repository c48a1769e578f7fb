"""The bytes of one catalogued file, for `cat`."""

import os
import shutil
from collections.abc import Callable
from typing import BinaryIO

import httpx

from dumbwaiter.config import Config
from dumbwaiter.errors import Exit, Failure, Verdict
from dumbwaiter.http import HEADERS, LIMITS
from dumbwaiter.model import MIB, Entry
from dumbwaiter.naming import shown
from dumbwaiter.upload import open_version


def fetch(config: Config, entry: Entry, address: Callable[[Entry, str | None], str], out: BinaryIO) -> None:
    """Writes the file to `out`. Raises `Failure` when not every byte of this version can be had."""
    root = config.folder_of(entry.watch)
    if root is not None:
        try:
            fd = open_version(root, entry.path, entry.stamp)
        except Verdict:
            pass  # changed or gone: the provider has it as it was
        else:
            with os.fdopen(fd, "rb") as file:
                shutil.copyfileobj(file, out, MIB)
            return
    url = address(entry, None)
    try:
        _download(entry, url, out)
    except _Refused:
        try:
            _download(entry, address(entry, url), out)
        except _Refused:
            raise Failure(f"{_place(entry)}: the provider does not let it be read", Exit.ACCOUNT) from None


class _Refused(Exception):
    """The provider does not take this link, or no longer."""


def _place(entry: Entry) -> str:
    return shown(entry.path or entry.key)


def _download(entry: Entry, url: str, out: BinaryIO) -> None:
    place, count = _place(entry), 0
    try:
        with httpx.stream("GET", url, timeout=LIMITS, headers=HEADERS) as response:
            if response.status_code in {401, 403}:
                raise _Refused
            if response.status_code != httpx.codes.OK:
                raise Failure(f"{place}: the provider answers {response.status_code}")
            for piece in response.iter_raw(MIB):
                out.write(piece)
                count += len(piece)
    except httpx.HTTPError as error:
        raise Failure(f"{place}: the provider cannot be read: {error}", Exit.TEMPORARY) from None
    if count != entry.size:
        raise Failure(f"{place}: {count} bytes came, {entry.size} are there")
