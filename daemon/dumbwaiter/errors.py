"""What can go wrong, by what has to be done about it.

Brokers and transports raise a verdict; `policy` decides what follows and `attempt` does it. Each message is a
sentence for a person. Trouble that ends a command instead of a job is a `Failure`, which carries its exit code.

    Verdict
    ├── Retry      nothing known wrong: 429, 5xx
    │   ├── Offline  the network, not the server
    │   └── Local    this machine, not the provider
    ├── Reauth     this grant is refused or expired
    ├── Restart    the remote forgot our session
    │   └── Unfit  the provider does not take files this way; another may do
    ├── Reject     this file will never be accepted
    │   └── Conflict  other content has the key
    ├── Skipped    other content has the key, and the watch leaves it at that
    ├── Changed    the file is no longer the stamped one
    │   └── Gone   there is no file any more
    ├── Paused     the provider or the watch rests; what was sent counts
    └── Blocked    the account is refused, not the file
    JournalTrouble the database is away or its disk full; nothing is lost, work waits
    └── Unstorable this value it will never take
    Failure        a command ends: exit code and sentence
"""

import errno
from enum import IntEnum

from dumbwaiter.naming import legible

# What this machine has no more of, whatever it is asked about: descriptors, memory.
LACKING = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
# What it may have again: those, room on a disk, a file server.
SHORT = LACKING | frozenset(
    {
        errno.ENOSPC,
        errno.EDQUOT,
        errno.EROFS,
        errno.EIO,
        errno.EAGAIN,
        errno.ESTALE,
        errno.ETIMEDOUT,
    }
)


class Verdict(Exception):
    """Why an attempt ended early. What a vendor's words in the sentence would do to a terminal is escaped."""

    def __init__(self, sentence: str) -> None:
        super().__init__(legible(sentence))


class Retry(Verdict):
    """Nothing is known to be wrong with file or account; the same again later.

    `after` is the number of seconds the server asked for, if it did. `void` is True when the request certainly had no
    effect: it never left, or it was turned away.
    """

    def __init__(self, sentence: str, *, after: float | None = None, void: bool = False) -> None:
        super().__init__(sentence)
        self.after = after
        self.void = void


class Offline(Retry):
    """The network, and not the server, is the trouble: when it changes, waiting is over."""


class Local(Retry):
    """The file cannot be had on this machine now; it says nothing of the provider."""


class Reauth(Verdict):
    """The grant in use is refused or expired; another one may do."""


class Restart(Verdict):
    """The remote no longer knows this upload; it begins again, for what was stored in `after` seconds."""

    def __init__(self, sentence: str, *, after: float = 0.0) -> None:
        super().__init__(sentence)
        self.after = after


class Unfit(Restart):
    """The provider does not take files in this way; the next one in the table of transports may do."""


class Reject(Verdict):
    """The provider will never accept this file as it is."""


class Conflict(Reject):
    """Other content has the key; the watch's `on_conflict` says what follows."""


class Skipped(Verdict):
    """Other content has the key, and the watch leaves it at that."""


class Changed(Verdict):
    """The file is no longer the version that the job was made for."""


class Gone(Changed):
    """The file was removed before it could be sent."""


class Paused(Verdict):
    """The provider or the watch rests: a pause, or the end of its window. It goes on from its checkpoint after that."""


class Blocked(Verdict):
    """The provider refuses the account; no file of it can go on until a person acts."""


class Stopped(Exception):
    """The attempt is being ended from outside; what was acknowledged stays, and nothing is anybody's fault."""


class Undone(Exception):
    """What is to be done once a file is uploaded could not be done now. A sentence.

    `after`: the seconds until it can be, where known. `hopeless`: nor will it ever be.
    """

    def __init__(self, sentence: str, *, after: float | None = None, hopeless: bool = False) -> None:
        super().__init__(sentence)
        self.after = after
        self.hopeless = hopeless


class Exit(IntEnum):
    """Exit codes of every command."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    TEMPORARY = 5
    ATTENTION = 20
    ACCOUNT = 21
    NO_DAEMON = 23


def exit_at(error: OSError) -> Exit:
    """Returns what a command ends with that could not get at a file: TEMPORARY, where it may by itself another time."""
    return Exit.TEMPORARY if error.errno in SHORT else Exit.USAGE


def exit_of(verdict: Verdict) -> Exit:
    """Returns what a command ends with that met a verdict."""
    if isinstance(verdict, Blocked):
        return Exit.ACCOUNT
    return Exit.FAILED if isinstance(verdict, Reject | Skipped) else Exit.TEMPORARY


class JournalTrouble(Exception):
    """The journal cannot be read or written now.

    Mostly weather that passes: a full disk, a server that is away. `code` is what a command ends with.
    """

    def __init__(self, sentence: str, code: Exit = Exit.TEMPORARY) -> None:
        super().__init__(legible(sentence))
        self.code = code


class Unstorable(JournalTrouble):
    """The database will never take this value: a path that is too long for it, say. Everything else goes on."""


class Failure(Exception):
    """A command cannot go on. The message is the one sentence that the user reads, fit for a terminal."""

    def __init__(self, sentence: str, code: Exit = Exit.FAILED) -> None:
        super().__init__(legible(sentence))
        self.code = code


class NoDaemon(Failure):
    """The command needs the daemon, and none answers."""

    def __init__(self, sentence: str) -> None:
        super().__init__(sentence, Exit.NO_DAEMON)
