"""NetEase's VOD API: mints upload tokens and knows the finished videos.

NetEase's VOD manual, 'call conventions', 'upload initialisation', 'video query'. The rule: HTTP answers 200 and the code in the
envelope says what happened. Every init invents a new object name; a video exists once its upload node has called back.
"""

import json
import os
import uuid
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeGuard, cast
from urllib.parse import parse_qs, quote

import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route
from starlette.types import Scope

from dumbwaiter_sandbox.callback import CallbackFailedError, caller
from dumbwaiter_sandbox.netease import nos_token
from dumbwaiter_sandbox.netease.options import NetEaseOptions
from dumbwaiter_sandbox.netease.vod_admission import Admission, RefusedError
from dumbwaiter_sandbox.netease.vod_videos import Reservation, Video, Videos
from dumbwaiter_sandbox.world import Endpoint, World, fault_of

PATHS = {
    "/app/vod/upload/init": "init",
    "/app/vod/upload/setcallback": "setcallback",
    "/app/vod/video/query": "query",
    "/app/vod/video/get": "get",
    "/app/vod/video/list": "list",
    "/app/vod/video/videoDelete": "delete",
}
CALLS = (*PATHS.values(), "callback")
OWN_FAULTS = frozenset({"code-NNN"})
USER_LIMIT = 256
SUFFIX_LIMIT = 128  # bytes; the name it ends must fit on a disk
NUMBER_LIMIT = 2**31 - 1
READY = 40
IMAGES = frozenset({".jpg", ".jpeg", ".png", ".gif", ".bmp", ".webp"})
TOLD_WITHIN = 5.0  # seconds, real time

# It stands in every token, and a token outlives a restart on other ports.
CALLBACK_URL = "http://vod.invalid/nos/callback"

Members = Mapping[str, Any]


class Vod:
    """The API server of one account."""

    def __init__(self, world: World, account: Mapping[str, str]) -> None:
        self._world = world
        self._account = account
        self._videos = Videos(world.database)
        self._admission = Admission(account)
        world.inside[CALLBACK_URL] = self._called_back

    @property
    def _options(self) -> NetEaseOptions:
        return cast("NetEaseOptions", self._world.options["netease"])

    def endpoint(self) -> Endpoint:
        """The server."""
        calls: dict[str, Callable[[Members], object]] = {
            "init": self._init,
            "setcallback": self._set_callback,
            "query": self._query,
            "get": self._get,
            "list": self._list,
            "delete": self._delete,
        }
        routes = [Route(path, self._call(calls[name]), methods=["POST"]) for path, name in PATHS.items()]
        return Endpoint(Starlette(routes=routes), _calls, _refuse, OWN_FAULTS)

    def _call(self, answer: Callable[[Members], object]) -> Callable[[Request], Awaitable[Response]]:
        async def call(request: Request) -> Response:
            try:
                fault = fault_of(request)
                if fault:
                    raise RefusedError(int(fault.name.removeprefix("code-")))
                self._admission.authenticate(request, self._options, self._world.clock.now())
                self._admission.pace(self._options.rate)
                return JSONResponse({"code": 200, "ret": answer(await _members(request))})
            except RefusedError as error:
                return JSONResponse({"code": error.code, "msg": str(error)})

        return call

    def _init(self, members: Members) -> object:
        origin = _text(members, "originFileName")
        stem, suffix = os.path.splitext(origin.rpartition("/")[2])
        if not suffix or suffix == "." or len(suffix.encode()) > SUFFIX_LIMIT:
            raise RefusedError(400, "originFileName has no suffix, or one that is too long")
        user = _text(members, "userDefInfo", "")
        if len(user) > USER_LIMIT:
            raise RefusedError(400, f"userDefInfo has more than {USER_LIMIT} characters")
        name = os.path.splitext(_text(members, "userFileName", ""))[0] or stem
        url = _text(members, "uploadCallbackUrl", "") or _text(members, "callbackUrl", "")
        reservation = Reservation(
            self._account["bucket"], f"{uuid.uuid4()}{suffix}", name, _number(members, "typeId", 0), url, user
        )
        self._videos.reserve(reservation)
        return {
            "xNosToken": self._token(reservation),
            "bucket": reservation.bucket,
            "object": reservation.object,
        }

    def _token(self, reservation: Reservation) -> str:
        now = self._world.clock.now()
        object_name = quote(reservation.object, safe="")
        policy = {
            "Bucket": reservation.bucket,
            "Object": reservation.object,
            "Expires": int(now + self._options.token_life),
            "CallbackUrl": CALLBACK_URL,
            "CallbackBody": f"objectName={object_name}&size=$(ObjectSize)&uploadStart={int(now * 1000)}",
        }
        return nos_token.mint(self._account["access_key"], self._account["secret_key"], policy)

    async def _called_back(self, body: str) -> str:
        """A node reports a finished object."""
        if self._world.faults.strike(("vod.callback",)):
            raise CallbackFailedError("the callback failed")
        values = parse_qs(body)
        reservation = self._videos.reservation(values.get("objectName", [""])[0])
        if reservation is None:
            raise CallbackFailedError("the callback names an unknown object")
        now = self._world.clock.now()
        size = int(values["size"][0])
        vid = self._videos.register(reservation, size, now, now + self._options.register_delay)
        url = reservation.callback_url or self._videos.callback_url
        if url:
            self._world.later(self._tell(url, reservation, vid))
        return json.dumps({"code": 200, "vid": vid}, separators=(",", ":"))

    async def _tell(self, url: str, reservation: Reservation, vid: int) -> None:
        """The customer's callback; nobody waits for it and nobody minds when it fails."""
        message = {
            "name": reservation.name,
            "origAddr": self._address(reservation.bucket, reservation.object),
            "type": "upload",
            "vid": vid,
            "user_defined": reservation.user_defined,
        }
        try:
            async with caller(TOLD_WITHIN) as client:
                await client.post(url, json=message)
        except (httpx.HTTPError, httpx.InvalidURL):
            return

    def _set_callback(self, members: Members) -> object:
        self._videos.callback_url = _text(members, "callbackUrl")
        return {}

    def _query(self, members: Members) -> object:
        names = members.get("objectNames")
        if not isinstance(names, list) or not names or not all(map(_is_text, names)):
            raise RefusedError(400, "objectNames is not a list of names")
        found = self._videos.named(names, self._world.clock.now())
        entries = [{"objectName": video.object, self._id_name(video): video.vid} for video in found]
        return {"count": len(entries), "list": entries}

    def _id_name(self, video: Video) -> str:
        image = os.path.splitext(video.object)[1].lower() in IMAGES
        return "imgId" if image and self._options.image_ids else "vid"

    def _get(self, members: Members) -> object:
        return self._described(self._found(members))

    def _delete(self, members: Members) -> object:
        video = self._found(members)
        self._videos.delete(video.vid)
        self._world.objects.remove(video.bucket, video.object)
        return {}

    def _found(self, members: Members) -> Video:
        video = self._videos.get(_number(members, "vid"), self._world.clock.now())
        if video is None:
            raise RefusedError(400, "the video does not exist")
        return video

    def _list(self, members: Members) -> object:
        page, size = _number(members, "currentPage", 1), _number(members, "pageSize", 10)
        if page < 1 or (size < 1 and size != -1):
            raise RefusedError(400, "currentPage or pageSize is out of range")
        now, type_id = self._world.clock.now(), _number(members, "type", 0)
        wanted = _number(members, "status", 0) in (0, READY)
        total = self._videos.count(type_id, now) if wanted else 0
        offset = 0 if size == -1 else (page - 1) * size
        videos = self._videos.page(type_id, now, size, offset) if wanted else []
        return {
            "pageSize": size,
            "currentPage": page,
            "totalRecords": total,
            "pageNum": -(-total // size) if size > 0 else 1,
            "list": [self._described(video) for video in videos],
        }

    def _described(self, video: Video) -> dict[str, object]:
        created = int(video.created * 1000)
        return {
            "vid": video.vid,
            "videoName": video.name,
            "status": READY,
            "description": "",
            "completeTime": created,
            "duration": 0,
            "typeId": video.type_id,
            "typeName": "default",
            "snapshotUrl": "",
            "createTime": created,
            "updateTime": created,
            "initialSize": video.size,
            "origUrl": self._address(video.bucket, video.object),
            "downloadOrigUrl": self._download(video),
        }

    def _address(self, bucket: str, name: str) -> str:
        return f"{self._world.urls['cdn']}/{quote(bucket)}/{quote(name)}"

    def _download(self, video: Video) -> str:
        plain = self._address(video.bucket, video.object)
        suffix = os.path.splitext(video.object)[1]
        query = f"download={quote(video.name + suffix, safe='')}"
        if self._options.signed_downloads:
            expires = str(int(self._world.clock.now() + self._options.download_life))
            signature = nos_token.download_signature(self._account["secret_key"], expires, video.bucket, video.object)
            key = quote(self._account["access_key"], safe="")
            query = f"NOSAccessKeyId={key}&Expires={expires}&{query}&Signature={quote(signature, safe='')}"
        return f"{plain}?{query}"


def _calls(scope: Scope) -> tuple[str, ...]:
    name = PATHS.get(scope["path"])
    return (name,) if name else ()


def _refuse(_: Scope, status: int) -> Response:
    # A status other than 200 does not come from the API but from the proxy before it.
    return HTMLResponse(f"<html><head><title>{status}</title></head><body><h1>{status}</h1></body></html>", status)


async def _members(request: Request) -> Members:
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise RefusedError(414)
    try:
        members = json.loads(await request.body())
    except ValueError as error:
        raise RefusedError(400, "the body is not JSON") from error
    if not isinstance(members, dict):
        raise RefusedError(400, "the body is not a JSON object")
    return members


def _text(members: Members, name: str, default: str | None = None) -> str:
    value = members.get(name, default)
    if not _is_text(value) or (default is None and not value):
        raise RefusedError(400, f"{name} is missing or no text")
    return value


def _is_text(value: object) -> TypeGuard[str]:
    """Half a surrogate pair is JSON and yet no text."""
    return isinstance(value, str) and not any("\ud800" <= character <= "\udfff" for character in value)


def _number(members: Members, name: str, default: int | None = None) -> int:
    value = members.get(name, default)
    if not isinstance(value, int) or isinstance(value, bool) or abs(value) > NUMBER_LIMIT:
        raise RefusedError(400, f"{name} is missing or no whole number")
    return value
