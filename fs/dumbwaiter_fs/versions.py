"""One `Version` for each entry that somebody has open, however many have."""

import threading
from hashlib import blake2b
from weakref import WeakValueDictionary

from dumbwaiter.model import Entry
from dumbwaiter_fs.remote import Remote
from dumbwaiter_fs.version import Version


class Versions:
    """The versions that are open. Any thread may call."""

    def __init__(self, remote: Remote) -> None:
        self._remote = remote
        self._lock = threading.Lock()
        self._known: WeakValueDictionary[str, Version] = WeakValueDictionary()

    def hold(self, entry: Entry) -> Version:
        """Returns the one version that all who have this entry open share. Each calls its `release` in the end."""
        name = named(entry)
        with self._lock:
            version = self._known.get(name)
            if version is None or version.stale:
                version = self._known[name] = Version(self._remote, name, entry)
            version.hold()
            return version


def named(entry: Entry) -> str:
    """Returns a name for the bytes of an entry that no other entry has, in no journal."""
    facts = (entry.provider, entry.key, entry.size, entry.stored_at)
    return blake2b(repr(facts).encode("utf-8", "surrogateescape"), digest_size=20).hexdigest()
