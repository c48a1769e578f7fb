"""What is kept of the events for those who come back."""

import asyncio
from pathlib import Path

from dumbwaiter.control.events import Event, Feed
from dumbwaiter.store.queue import UNNAMED
from inside import daemon
from program import PATIENCE, Vendors


async def the_next(kind: str, feed: Feed, last: str = "") -> Event:
    async for event in feed.follow(last):
        if event is not None and event.kind == kind:
            return event
    raise AssertionError("the feed ended")


def test_what_says_all_is_kept_once_and_who_missed_more_begins_with_it(vendors: Vendors, tmp_path: Path) -> None:
    """With a full disk all is told every few seconds, and a thousand files that cannot be put away at every try."""

    async def test() -> None:
        async with asyncio.timeout(PATIENCE), daemon(vendors, tmp_path) as app:
            feed = Feed(app)
            try:
                missed = await the_next("state", feed)
                for number in range(3):
                    feed._tell("errands", [{"id": number}])
                assert [one.facts for one in feed._events if one.kind == "errands"] == [[{"id": 2}]] * 4
                assert (await the_next("errands", feed, missed.id)).facts == [{"id": 2}]
                feed._hear({UNNAMED})
                snapshot = await the_next("snapshot", feed, feed._id(feed._count))
                assert feed._events[0] == snapshot
                assert (await the_next("snapshot", feed, missed.id)).facts["running"]
            finally:
                await feed.aclose()

    asyncio.run(test())
