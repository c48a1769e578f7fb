"""Asks the daemon for the address of a file whose catalogued url is missing or has expired.

This process holds no secret and can sign nothing. It asks over the control socket, by the number of the entry. An
answer is kept until shortly before it expires; after a failure nothing is asked for some seconds.
"""

import errno
import http.client
import json
import threading
import time
from collections import OrderedDict
from typing import Any

from dumbwaiter.client import Connection
from dumbwaiter.errors import Exit, Failure
from dumbwaiter.model import Entry
from dumbwaiter_fs.deadline import left
from dumbwaiter_fs.errnos import Refused

TIMEOUT = 15.0  # seconds for one answer
MARGIN = 60.0  # seconds of life that an address must have left
AGAIN = 5.0  # seconds until a failure is asked about again
KEPT = 10_000  # answers
SILENT = "the daemon did not say where the file can be read"
_MEANING = {Exit.TEMPORARY: errno.EHOSTUNREACH, Exit.ACCOUNT: errno.EACCES}

_Which = tuple[int, str, str]  # an entry: a database gives its number to another one later
_Answer = tuple[float, "str | Refused"]  # good until, and what it was


class Links:
    """The addresses that were asked for. Any thread may call; it waits no longer than its `deadline.until` lets it."""

    def __init__(self, socket: str, state: str) -> None:
        self._socket = socket
        self._state = state
        self._lock = threading.Lock()
        self._answers: OrderedDict[_Which, _Answer] = OrderedDict()
        self._asking: dict[_Which, threading.Lock] = {}

    def get(self, entry: Entry, refused: str | None = None) -> str:
        """Returns an address other than the one that was `refused`. Raises an errno with the daemon's sentence."""
        which = (entry.id, entry.provider, entry.key)
        with self._lock:
            turn = self._asking.setdefault(which, threading.Lock())
        if not turn.acquire(timeout=left(2 * TIMEOUT)):
            raise Refused(errno.ETIMEDOUT, SILENT)
        try:  # whoever waited finds the answer
            with self._lock:
                until, answer = self._answers.get(which, (0.0, ""))
            if time.monotonic() >= until or answer == refused:
                until, answer = self._ask(entry, refused)
                self._keep(which, (until, answer))
        finally:
            turn.release()
        if isinstance(answer, Refused):
            raise Refused(answer.errno or errno.EIO, answer.why)
        return answer

    def _keep(self, which: _Which, answer: _Answer) -> None:
        with self._lock:
            self._answers[which] = answer
            self._answers.move_to_end(which)
            while len(self._answers) > KEPT:
                self._asking.pop(self._answers.popitem(last=False)[0], None)

    def _ask(self, entry: Entry, refused: str | None) -> _Answer:
        now = time.monotonic()
        wait = max(0.01, left(TIMEOUT))
        connection = Connection(self._socket, self._state, wait)
        try:
            connection.request("POST", "/link", json.dumps({"id": entry.id, "refused": refused}))
            response = connection.getresponse()
            answer: dict[str, Any] = json.loads(response.read())
            if response.status != 200:
                return now + AGAIN, Refused(_MEANING.get(answer["code"], errno.ENXIO), answer["error"])
            life = answer["expires_in"]
            return now + (life - MARGIN if life is not None else 3600.0), str(answer["url"])
        except Failure as failure:  # somebody else listens
            return now + AGAIN, Refused(errno.EACCES, str(failure))
        except (FileNotFoundError, ConnectionRefusedError):
            why = "the link has to come from the daemon, which is not running: start it with `dumbwaiter run`"
            return now + AGAIN, Refused(errno.ENXIO, why)
        except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError) as error:
            if isinstance(error, TimeoutError) and wait < TIMEOUT:  # this reader's own end says nothing to others
                raise Refused(errno.ETIMEDOUT, SILENT) from None
            return now + AGAIN, Refused(errno.EHOSTUNREACH, SILENT)
        finally:
            connection.close()
