"""What a running daemon can be asked and told by HTTP: on its own socket (`unix_socket`); the page (`web`) has some of it.

Small and the same for every client; an answer that goes on is one JSON object a line, written when the journal
changes and not by asking it over and over. What each route takes and gives stands in docs/api.md.

    GET  /status[?jobs=0][&follow=1[&scan=1]]
    GET  /events                            server-sent events; Last-Event-ID goes on where that was
    GET  /history[?limit=][&before=]        pages of the catalog, the latest first
    GET  /thumbnail/ID                      a small picture of an entry; 204 where there is none
    POST /put      {"paths": [...], "provider": null, "watch": null, "again": false}   follows the jobs to their end
    POST /retry    {"ids": [...] or null, "waiting": true}
    POST /forget   {"ids": [...]}
    POST /rescan   {"watch": null}
    POST /link     {"id": ..., "refused": null, "form": "url"}   where an entry can be read now; other than the url
                                            that was refused; as markdown, html, bbcode or a template
    POST /still    {"id": ...}              whether the vendor has an entry, null where it does not tell
    POST /sync     {"provider": null}       follows the reading of providers' own lists
    POST /pause    {"name": "", "seconds": null}   a provider, a watch, or "" for everything
    POST /resume   {"name": null}
    POST /bandwidth {"rate": null}   like "2M" or "off", "auto" for what is configured, null only to ask
    POST /claim    {"path": "files/..."}   percent-encoded, a path of the catalog's trees
    GET  /metrics  Prometheus' text format
"""

import asyncio
import os
import re
import time
from collections.abc import AsyncIterator, Mapping
from typing import Annotated, Any, TypeVar
from urllib.parse import unquote_to_bytes

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from dumbwaiter.app import App
from dumbwaiter.catalog import Catalog
from dumbwaiter.config.values import LONGEST
from dumbwaiter.control.events import Event, Feed
from dumbwaiter.control.following import follow_jobs, follow_status, follow_walks
from dumbwaiter.control.orders import Orders
from dumbwaiter.control.pictures import Pictures, promising
from dumbwaiter.errors import Exit, Failure, JournalTrouble
from dumbwaiter.facts import entry_facts
from dumbwaiter.links import filled, template
from dumbwaiter.naming import shown
from dumbwaiter.redaction import redact

T = TypeVar("T")
BODY_MAX = 4 << 20
PUT_MAX = 64 << 20  # a command line has 2 MiB; each name in it may get a folder in front and grow threefold
PAGE_MAX = 500
SLOW = 30.0  # seconds for a request to come whole


_Id = Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]


class _Put(msgspec.Struct, forbid_unknown_fields=True):
    paths: list[str]  # absolute and percent-encoded: JSON cannot hold a name that is no UTF-8
    provider: str | None = None
    watch: str | None = None
    again: bool = False


class _Ids(msgspec.Struct, forbid_unknown_fields=True):
    ids: list[_Id] | None = None


class _Retry(msgspec.Struct, forbid_unknown_fields=True):
    ids: list[_Id] | None = None
    waiting: bool = True


class _Claim(msgspec.Struct, forbid_unknown_fields=True):
    path: str


class _Link(msgspec.Struct, forbid_unknown_fields=True):
    id: _Id
    refused: str | None = None
    form: str = "url"


class _Still(msgspec.Struct, forbid_unknown_fields=True):
    id: _Id


class _Sync(msgspec.Struct, forbid_unknown_fields=True):
    provider: str | None = None


class _Pause(msgspec.Struct, forbid_unknown_fields=True):
    name: str = ""
    seconds: Annotated[float, msgspec.Meta(gt=0, le=LONGEST)] | None = None


class _Resume(msgspec.Struct, forbid_unknown_fields=True):
    name: str | None = None


class _Rate(msgspec.Struct, forbid_unknown_fields=True):
    rate: str | None = None


class _Rescan(msgspec.Struct, forbid_unknown_fields=True):
    watch: str | None = None


class Control:
    """Everything that can be asked of a running app."""

    def __init__(self, app: App, feed: Feed) -> None:
        self._app = app
        self._feed = feed
        self._orders = Orders(app)
        self._pictures = Pictures(app, self._orders)

    def routes(self) -> list[Route]:
        return [
            Route("/status", self._status),
            Route("/events", self._events),
            Route("/history", self._history),
            Route("/thumbnail/{id}", self._thumbnail),
            Route("/metrics", self._measure),
            Route("/put", self._put, methods=["POST"]),
            Route("/retry", self._retry, methods=["POST"]),
            Route("/forget", self._forget, methods=["POST"]),
            Route("/rescan", self._rescan, methods=["POST"]),
            Route("/link", self._link, methods=["POST"]),
            Route("/still", self._still, methods=["POST"]),
            Route("/sync", self._sync, methods=["POST"]),
            Route("/pause", self._pause, methods=["POST"]),
            Route("/resume", self._resume, methods=["POST"]),
            Route("/bandwidth", self._bandwidth, methods=["POST"]),
            Route("/claim", self._claim, methods=["POST"]),
        ]

    async def _status(self, request: Request) -> Response:
        listed = request.query_params.get("jobs") != "0"
        if request.query_params.get("follow") != "1":
            return _json(await asyncio.to_thread(self._app.status.facts, listed=listed))
        scan = request.query_params.get("scan") == "1"
        return _lines(follow_status(self._app, listed=listed, scan=scan))

    async def _put(self, request: Request) -> Response:
        wish = await _body(request, _Put, PUT_MAX)
        paths = [os.fsdecode(unquote_to_bytes(path)) for path in wish.paths]
        ids = await self._orders.put(paths, wish.provider, wish.watch, again=wish.again)
        return _lines(follow_jobs(self._app, ids))

    async def _retry(self, request: Request) -> Response:
        wish = await _body(request, _Retry)
        return _json({"count": await self._orders.retry(wish.ids, waiting=wish.waiting)})

    async def _forget(self, request: Request) -> Response:
        ids = (await _body(request, _Ids)).ids or []
        count = await self._orders.forget(ids)
        self._app.pulse.beat()
        return _json({"count": count})

    async def _rescan(self, request: Request) -> Response:
        return _json({"watches": self._app.watches.rescan((await _body(request, _Rescan)).watch)})

    async def _link(self, request: Request) -> Response:
        wish = await _body(request, _Link)
        form = template(wish.form)
        found = await self._orders.link(wish.id, wish.refused)
        entry = msgspec.structs.replace(await self._orders.entry(wish.id), url=found.url)
        life = None if found.expires_at is None else found.expires_at - time.time()
        return _json({"url": found.url, "expires_in": life, "text": filled(entry, form)})

    async def _events(self, request: Request) -> Response:
        told = self._feed.follow(request.headers.get("last-event-id", ""))
        return StreamingResponse(_server_sent(told), media_type="text/event-stream")

    async def _history(self, request: Request) -> Response:
        limit, before = _page(request.query_params)
        found = await asyncio.to_thread(Catalog(self._app.reader).history, limit, before=before)
        return _json(
            {
                "entries": [{"id": one.id, **entry_facts(one), "picture": promising(one)} for one in found],
                "before": f"{found[-1].stored_at!r},{found[-1].id}" if len(found) == limit else None,
            }
        )

    async def _thumbnail(self, request: Request) -> Response:
        number = request.path_params["id"]
        if not re.fullmatch("[0-9]{1,18}", number):
            raise HTTPException(404)
        picture = await self._pictures.of(await self._orders.entry(int(number)))
        if picture is None:
            return Response(status_code=204)
        return Response(picture.content, media_type=picture.mime, headers={"cache-control": "private, max-age=86400"})

    async def _still(self, request: Request) -> Response:
        return _json({"there": await self._orders.still((await _body(request, _Still)).id)})

    async def _sync(self, request: Request) -> Response:
        return _lines(follow_walks(self._app, self._app.walks.of((await _body(request, _Sync)).provider)))

    async def _pause(self, request: Request) -> Response:
        wish = await _body(request, _Pause)
        return _json(await self._orders.pause(wish.name, wish.seconds))

    async def _resume(self, request: Request) -> Response:
        return _json(await self._orders.resume((await _body(request, _Resume)).name))

    async def _bandwidth(self, request: Request) -> Response:
        return _json(self._orders.bandwidth((await _body(request, _Rate)).rate))

    async def _claim(self, request: Request) -> Response:
        wish = await _body(request, _Claim)
        return _json(await self._orders.claim(os.fsdecode(unquote_to_bytes(wish.path))))

    async def _measure(self, _request: Request) -> Response:
        text, kind = await asyncio.to_thread(_measured, self._app)
        return Response(text, media_type=kind)


def _page(query: Mapping[str, str]) -> tuple[int, tuple[float, int] | None]:
    """Returns how many entries are wanted, and before which one. Raises `Failure`."""
    try:
        limit = min(max(int(query.get("limit", "50")), 1), PAGE_MAX)
        if "before" not in query:
            return limit, None
        when, _, number = query["before"].partition(",")
        return limit, (float(when), int(number))
    except ValueError:
        raise Failure('write "limit" as a number, and "before" as the last page gave it', Exit.USAGE) from None


async def _server_sent(events: AsyncIterator[Event | None]) -> AsyncIterator[bytes]:
    """Writes events as the HTML standard has them; a comment when nothing happens."""
    yield b"retry: 2000\n\n"
    async for event in events:
        if event is None:
            yield b":\n\n"
        else:
            yield f"id: {event.id}\nevent: {event.kind}\ndata: ".encode() + msgspec.json.encode(event.facts) + b"\n\n"


async def _failure(_request: Request, error: Exception) -> Response:
    assert isinstance(error, Failure | JournalTrouble)
    answer = _json({"error": str(error), "code": int(error.code)}, 400)
    answer.headers["connection"] = "close"  # the rest of a request that is too large is not waited for
    return answer


async def _unknown(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    asked = f"{request.method} {shown(request.scope['path'])}"
    facts = {"error": f"{asked} is nothing that the daemon does: see docs/api.md", "code": int(Exit.USAGE)}
    answer = _json(facts, error.status_code)
    answer.headers.update(error.headers or {})
    return answer


async def _defect(_request: Request, error: Exception) -> Response:
    sentence = f"the daemon has a defect: {redact(repr(error))}; its log says where"
    return _json({"error": sentence, "code": int(Exit.FAILED)}, 500)


EXCEPTION_HANDLERS: dict[Any, Any] = {
    Failure: _failure,
    JournalTrouble: _failure,
    HTTPException: _unknown,
    Exception: _defect,
}


async def _body(request: Request, shape: type[T], most: int = BODY_MAX) -> T:
    content = bytearray()
    try:
        async with asyncio.timeout(SLOW):
            async for piece in request.stream():
                content += piece
                if len(content) > most:
                    raise Failure("the request is too large", Exit.USAGE)
    except (TimeoutError, ClientDisconnect):
        raise Failure("the request did not come whole", Exit.USAGE) from None
    try:
        return msgspec.json.decode(content or b"{}", type=shape)
    except msgspec.DecodeError as error:
        raise Failure(f"the request cannot be read: {error}", Exit.USAGE) from None


def _measured(app: App) -> tuple[bytes, str]:
    from dumbwaiter.control import metrics  # its library is a large thing to load, and seldom wanted

    return metrics.text(app), metrics.TYPE


def _json(value: Any, status: int = 200) -> Response:
    return Response(msgspec.json.encode(value), status, media_type="application/json")


def _lines(values: AsyncIterator[Any]) -> Response:
    async def lines() -> AsyncIterator[bytes]:
        async for value in values:
            yield msgspec.json.encode(value) + b"\n"

    return StreamingResponse(lines(), media_type="application/x-ndjson")
