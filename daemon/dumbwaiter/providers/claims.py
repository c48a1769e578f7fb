"""What a person buys beside a stored file, once: the intention is on the disk before the call that costs.

The fact "claim" of a catalogued file says how it stands: "intended" from just before that call, "charged" once its
answer is here. Whoever finds "intended" cannot know whether the call was made (a crash, a lost answer); a person may
have it made again, for the vendor charges one task once. Nothing but the command `claim` leads here.
"""

import asyncio
import time
from contextlib import suppress
from typing import Any

from dumbwaiter import log
from dumbwaiter.errors import Blocked, Exit, Failure, JournalTrouble, Reject, Retry, Verdict, exit_of
from dumbwaiter.journal import Journal
from dumbwaiter.model import Entry
from dumbwaiter.naming import shown
from dumbwaiter.providers.provider import Provider

INTENDED, CHARGED = "intended", "charged"
PAUSES = (0.0, 1.0, 4.0, 15.0)  # seconds before each try to note what was paid for


async def claim(journal: Journal, provider: Provider, entry: Entry) -> dict[str, Any]:
    """Fetches what the provider sells beside `entry` and catalogues it; what was fetched before is only told again.

    Raises `Failure` when it cannot be had, and when nobody knows whether it was paid for.
    """
    place = shown(entry.place)
    if entry.facts.get("claim") == CHARGED:
        return {"path": place, "url": entry.facts.get("claimed"), "charged": False}
    again = "claim" in entry.facts
    intended = False

    async def intend() -> None:
        nonlocal intended
        if not again and not await journal.entries.amend(entry.id, time.time(), {"claim": INTENDED}, unless="claim"):
            raise Failure(f"{place}: somebody else claims it just now", Exit.TEMPORARY)
        intended = True
        log.get("claims").warning("claim intended", provider=provider.name, path=place, key=entry.key)

    try:
        receipt = (await provider.broker.claim(entry, intend, provider)).plain
    except Verdict as verdict:
        void = isinstance(verdict, Blocked | Reject) or (isinstance(verdict, Retry) and verdict.void)
        if intended and not void:
            raise Failure(
                f"{place}: {verdict}; it may have been charged: claim it again, one picture is charged once",
                Exit.ATTENTION,
            ) from None
        if again:
            raise Failure(f"{place}: {verdict}; an earlier claim may have been charged", Exit.ATTENTION) from None
        if intended:
            await journal.entries.amend(entry.id, time.time(), {"claim": None})
        raise Failure(f"{place}: {verdict}; nothing was charged", exit_of(verdict)) from None
    url = receipt.url or ""
    log.get("claims").warning("claim charged", provider=provider.name, path=place, key=entry.key)
    for pause in PAUSES:  # it is paid for, so who asked gets it in any case
        await asyncio.sleep(pause)
        with suppress(JournalTrouble):
            await journal.entries.amend(entry.id, time.time(), {"claim": CHARGED, "claimed": url}, result=receipt)
            break
    else:
        log.get("claims").error("claim charged, and the journal cannot note it", path=place, url=url)
    return {"path": place, "url": url, "charged": True}
