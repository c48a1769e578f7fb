"""One scan of a watched folder: every file in it that the journal does not know as it is.

A folder is passed by when its digest is the one noted with the journal; rows are looked at in the others only. A
digest is noted only for a folder whose every wanted file the journal knows under the very stamp that the digest
covers, so a file that is still settling, or could not be queued, is met again by the next scan.
"""

import os
from typing import NamedTuple

import xxhash

from dumbwaiter import log
from dumbwaiter.files.ignore import Rules
from dumbwaiter.files.scan import Rows, digest, rows, walk, wanted
from dumbwaiter.model import Stamp
from dumbwaiter.naming import join
from dumbwaiter.store.folders import Folders, Surveyed
from dumbwaiter.watch.survey import Survey

LARGE = 100_000  # files, from which on helpers are faster than this process
PAGE = 1000  # notes looked through at a time


def for_provider(digest: bytes, provider: str) -> bytes:
    """Returns a folder's digest as it is noted: what one provider has, another one may want."""
    return xxhash.xxh3_128_digest(digest + provider.encode())


class Step(NamedTuple):
    """What some folders of the tree hold."""

    files: int
    fresh: list[tuple[str, Stamp]]  # path and stamp of what is not known as it is
    surveyed: list[Surveyed]  # may be noted with the journal


class Rescan:
    """One passage. `step` blocks and is for one thread at a time, `close` for any."""

    def __init__(self, folders: Folders, watch: str, root: str, rules: Rules, provider: str) -> None:
        self._folders = folders
        self._watch = watch
        self._provider = provider
        self._root = root
        self._rules = rules
        self._log = log.get("scan")
        self._noted, files = folders.surveyed(watch)
        self._met = 0
        self._survey = Survey(root, rules, large=files >= LARGE, skipped=self._skipped)

    def step(self) -> Step | None:
        """Returns what the next folders hold, None after the last. Raises OSError, and `JournalTrouble`."""
        batch = self._survey.take()
        if not batch:
            return None
        noted = self._folders.digests(self._watch, [found.folder for found in batch])
        self._met += len(noted)
        step = Step(sum(found.files for found in batch), [], [])
        for found in batch:
            if noted.get(found.folder) != for_provider(found.digest, self._provider):
                self._compare(found.folder, found.rows, step)
        return step

    def close(self) -> None:
        self._survey.close()

    def gone(self) -> list[list[str]]:
        """Returns, in pages, the folders that have a note and are no more. To be asked after the last step."""
        pages = []
        after = None
        while self._met < self._noted and (page := self._folders.noted(self._watch, after, PAGE)):
            after = page[-1]
            pages.append([folder for folder in page if not os.path.isdir(os.path.join(self._root, folder))])
        return [page for page in pages if page]

    def _compare(self, folder: str, found: Rows | None, step: Step) -> None:
        if found is None:  # a helper's word, and rows are needed
            here = walk(self._root, self._rules.enters, folder, read=rows, deep=False)
            found = next((again for _, again, _ in here), None)
            if found is None:
                return
        files = list(wanted(folder, found, self._rules))
        known = self._folders.known(self._watch, folder, self._provider) if files else {}
        fresh = [(name, stamp) for name, stamp in files if name not in known or known[name].stamp != stamp]
        if fresh:
            step.fresh.extend((join(folder, name), stamp) for name, stamp in fresh)
        else:
            whole = for_provider(digest(found, self._rules), self._provider)
            step.surveyed.append(Surveyed(folder, len(files), whole))

    def _skipped(self, folder: str, error: OSError) -> None:
        self._log.info("folder left out", watch=self._watch, folder=folder, reason=error.strerror)
