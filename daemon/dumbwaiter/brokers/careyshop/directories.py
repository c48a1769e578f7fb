"""The walk through a shop's directories: the shop lists one at a time, page by page. Pure."""

from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from dumbwaiter.errors import Blocked
from dumbwaiter.wire import careyshop

PAGE = 200  # rows
DIRECTORIES, DEPTH = 100_000, 64  # a list with more, or deeper ones, has no end
AGAIN = 3  # times that a directory is listed anew because something was deleted from it meanwhile
SIZE_MAX = 2**63 - 1


class Rows(Struct):
    """One page."""

    items: tuple[careyshop.Row, ...] = ()
    total_result: int = 0


# A directory with nothing in it is answered with nothing, and PHP has several.
ANSWER: Any = Rows | tuple[()] | None


class Place(Struct, frozen=True, omit_defaults=True):
    """Where a walk is. The journal keeps it, under these names."""

    folder: int = 0
    page: int = 1
    seen: int = 0  # rows on this directory's earlier pages
    total: int = 0  # rows that it has, as the page before said
    again: int = 0  # times that this directory was begun anew
    depth: int = 0  # directories above this one
    met: int = 0  # directories so far
    deeper: int = 0  # of those to come, the last ones, which lie in others of this one's depth
    left: tuple[int, ...] = ()  # directories to come

    @property
    def wanted(self) -> dict[str, str]:
        """What the shop is asked for. Rows come by their number: what is added meanwhile comes at the end."""
        rows = {"storage_id": str(self.folder), "order_field": "storage_id", "order_type": "asc"}
        return rows | {"page_no": str(self.page), "page_size": str(PAGE)}

    def after(self, found: Rows) -> "tuple[Place | None, bool]":
        """Returns where the walk goes on after a page, None at its end, and whether nothing was passed over.

        Raises `Blocked` for directories that have no end.
        """
        seen, total = self.seen + len(found.items), found.total_result
        here = self._with_directories(found)
        shrunk = total < self.total or (not found.items and seen < total)  # what follows has moved to earlier pages
        if shrunk and self.again < AGAIN:
            return replace(here, page=1, seen=0, total=0, again=self.again + 1), True
        if found.items and seen < total:
            return replace(here, page=self.page + 1, seen=seen, total=total), not shrunk
        return here.next(), not shrunk

    def _with_directories(self, found: Rows) -> "Place":
        rows = (one.storage_id for one in found.items if one.folder and one.parent_id in {None, self.folder})
        inner = (id_ for id_ in rows if id_ is not None and id_ != self.folder and abs(id_) <= SIZE_MAX)
        left = tuple(dict.fromkeys([*self.left, *inner]))
        fresh = len(left) - len(self.left)
        if self.met + fresh > DIRECTORIES or (fresh and self.depth >= DEPTH):
            raise Blocked(
                f"the shop's list has more than {DIRECTORIES} directories, or some {DEPTH} deep in one another: no shop's has"
            )
        return replace(self, met=self.met + fresh, deeper=self.deeper + fresh, left=left)

    def next(self) -> "Place | None":
        """Returns the first page of the next directory."""
        if not self.left:
            return None
        down = self.deeper == len(self.left)
        depth, deeper = (self.depth + 1, 0) if down else (self.depth, self.deeper)
        return Place(self.left[0], depth=depth, met=self.met, deeper=deeper, left=self.left[1:])
