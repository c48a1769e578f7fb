"""The kernel's word on the network: an address or a link that comes, goes, or works again.

A netlink socket in the loop tells of it; nothing is asked again and again. What the kernel repeats without a change
(the renewed life of an address, a wireless scan) is no news.
"""

import asyncio
import socket
import struct
from collections.abc import Callable, Iterator

CHANGED = "the network changed"
QUIET = 1.0  # seconds without news until a change is told: a new network brings many at once
LONGEST = 10.0  # seconds until it is told all the same

_LINK, _ADDRESS_4, _ADDRESS_6 = 0x1, 0x10, 0x100  # RTMGRP_*
_NEW_LINK, _DEL_LINK, _NEW_ADDRESS, _DEL_ADDRESS = 16, 17, 20, 21  # RTM_*
_RUNNING = 0x40  # IFF_RUNNING: it is up, and something is at the other end
_HEAD = struct.Struct("=IHHII")  # length, type, flags, sequence, port
_LINK_HEAD = struct.Struct("=BxHiII")  # family, type, index, flags, changed
_ADDRESS_HEAD = struct.Struct("=BBBBI")  # family, prefix, flags, scope, index


class NetworkMonitor:
    """Listens while it is open. `changed` is called in the loop."""

    def __init__(self, changed: Callable[[], None]) -> None:
        self._changed = changed
        self._loop = asyncio.get_running_loop()
        self._known: dict[tuple[int, bytes], bool] = {}
        self._soon: asyncio.TimerHandle | None = None
        self._until = 0.0
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.NETLINK_ROUTE)
        try:
            self._socket.bind((0, _LINK | _ADDRESS_4 | _ADDRESS_6))
        except OSError:
            self._socket.close()
            raise
        self._loop.add_reader(self._socket, self._read)

    def close(self) -> None:
        """Stops listening; nothing is called afterwards."""
        if self._soon is not None:
            self._soon.cancel()
        self._loop.remove_reader(self._socket)
        self._socket.close()

    def _read(self) -> None:
        news = False
        try:
            while True:
                for what, there, gone in _news(self._socket.recv(65536)):
                    news |= self._known.get(what) is not there
                    self._known[what] = there
                    if gone:  # its number does not come again
                        del self._known[what]
        except BlockingIOError:  # that was all
            pass
        except OSError:  # more at once than the socket keeps
            self._known.clear()
            news = True
        if news:
            now = self._loop.time()
            if self._soon is None:
                self._until = now + LONGEST
            else:
                self._soon.cancel()
            self._soon = self._loop.call_at(min(now + QUIET, self._until), self._tell)

    def _tell(self) -> None:
        self._soon = None
        self._changed()


def _news(data: bytes) -> Iterator[tuple[tuple[int, bytes], bool, bool]]:
    """Yields what is told of: a link or an address, whether it is there and works, and whether it is gone for good."""
    at = 0
    while at + _HEAD.size <= len(data):
        length, kind, *_ = _HEAD.unpack_from(data, at)
        if length < _HEAD.size:
            return
        body = data[at + _HEAD.size : at + length]
        if kind in {_NEW_LINK, _DEL_LINK} and len(body) >= _LINK_HEAD.size:
            _, _, index, flags, _ = _LINK_HEAD.unpack_from(body)
            yield (index, b""), kind == _NEW_LINK and bool(flags & _RUNNING), kind == _DEL_LINK
        elif kind in {_NEW_ADDRESS, _DEL_ADDRESS} and len(body) >= _ADDRESS_HEAD.size:
            *_, index = _ADDRESS_HEAD.unpack_from(body)
            there = kind == _NEW_ADDRESS
            yield (index, _address(body[_ADDRESS_HEAD.size :])), there, not there
        at += -(-length // 4) * 4


def _address(attributes: bytes) -> bytes:
    """Returns the first attribute, which is the address; those behind it hold its life, which is renewed."""
    if len(attributes) < 4:
        return attributes
    return attributes[: struct.unpack_from("=H", attributes)[0]]
