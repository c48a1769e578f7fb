"""Whether the providers can be reached from here, and how their clocks go. Nobody is signed in to."""

import asyncio
import re
from collections.abc import Iterable
from typing import Any
from urllib.parse import urlsplit

from dumbwaiter.cli.doctor.finding import Finding, failing
from dumbwaiter.config import Config
from dumbwaiter.errors import Failure, Verdict

SKEW = 60.0  # seconds; vendors refuse signatures some minutes off
PATIENCE = 15.0  # seconds for a provider to answer


async def providers(config: Config) -> list[Finding]:
    """Asks every provider's addresses for nothing, and compares clocks."""
    from dumbwaiter.net.http import Http

    try:
        http = Http()
    except Failure as failure:
        return [failing("proxy", failure)]
    try:
        wanted = [(name, url) for name, options in config.provider.items() for url in addresses(options)]
        return list(await asyncio.gather(*(_reach(http, name, url) for name, url in wanted)))
    finally:
        await http.close()


def addresses(options: Any) -> list[str]:
    """Returns the addresses that a provider's options name, each host once."""
    texts: Iterable[Any] = (getattr(options, name) for name in options.__struct_fields__)
    if hasattr(options, "request") and not isinstance(options.request, str):
        texts = [*texts, options.request.url]
    found = [re.match(r"https?://[^/{}]+", text) for text in texts if isinstance(text, str)]
    return list(dict.fromkeys(one[0] for one in found if one))


async def _reach(http: Any, name: str, url: str) -> Finding:
    from dumbwaiter.wire.message import Request

    host = urlsplit(url).netloc
    check = f"provider {name}"
    try:
        async with asyncio.timeout(PATIENCE):
            await http.call(Request("doctor", "GET", f"{url}/"))
    except (Verdict, TimeoutError) as error:
        says = str(error).partition(": ")[2] or f"{host} takes too long to answer"
        return Finding(
            check,
            "fail",
            says,
            "is this machine online? a proxy is taken from HTTPS_PROXY; the address is in the configuration",
        )
    skew = http.skew(url)
    if abs(skew) > SKEW:
        return Finding(
            check, "warn", f"the clock of {host} is {skew:+.0f} seconds from this machine's",
            "timedatectl set-ntp true; until then dumbwaiter reckons with the difference",
        )  # fmt: skip
    return Finding(check, "ok", f"{host} answers, its clock agrees")
