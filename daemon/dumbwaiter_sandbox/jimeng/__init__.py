"""Jimeng and Dreamina with ImageX: their row, their accounts, their sign-in, their sections of the config.

The sign-in is that of the vendor's web pages. The rule: it answers 200, and `ret` says what happened; the session is in the cookie
`sessionid`. What else a page sends along is looked at by the switch `strict`.
"""

import gzip
import json
import re
import secrets
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from http.cookies import CookieError, SimpleCookie
from typing import cast

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route
from starlette.types import Scope

from dumbwaiter_sandbox.jimeng import imagex, imagex_hosts
from dumbwaiter_sandbox.jimeng.imagex_store import Store
from dumbwaiter_sandbox.jimeng.options import JimengOptions
from dumbwaiter_sandbox.jimeng.sigv4_check import AWS, VOLCENGINE, Credentials
from dumbwaiter_sandbox.world import Endpoint, Service, Vendor, World, fault_of

# Made up: they open nothing but this sandbox.
ACCOUNT = {
    "session_cn": "0c1d2e3f405162738495a6b7c8d9eaf1",
    "session_us": "f1eadcc9b8a796857463524130f2e1d0",
    "auth_key": "imagexauth001",
    # Of the public product, for its SDKs.
    "access_key": "AKLTsandbox0000000000000000000001",
    "secret_key": "veimagexsecret001",
    "service_sdk": "sdksandbox",
}
SERVICES = {"cn": "tb4s082cfz", "us": "wopfjsm1ax"}
BUCKETS = {
    "tb4s082cfz": "tos-cn-i-tb4s082cfz",
    "wopfjsm1ax": "tos-useast5-i-wopfjsm1ax-tx",
    "sdksandbox": "tos-cn-i-sdksandbox",
}
APPS = {"cn": "513695", "us": "513641"}
REGIONS = {"cn": "cn", "us": "us-east-1"}
STORES = {"cn": "cn-gd", "us": "us"}
QUERY = {"aid": r"513641", "web_version": r"[\d.]+", "da_version": r"[\d.]+", "aigc_features": r"app_lip_sync"}
PAGES = {"cn": "https://jimeng.jianying.com", "us": "https://api-proxy-1.deno.dev"}
SENT = {
    "accept": "application/json, text/plain, */*",
    "accept-language": "zh-CN,zh;q=0.9",
    "cache-control": "no-cache",
    "pragma": "no-cache",
    "priority": "u=1, i",
    "sec-ch-ua": '"Google Chrome";v="131", "Chromium";v="131", "Not_A Brand";v="24"',
    "sec-ch-ua-mobile": "?0",
    "sec-ch-ua-platform": '"Windows"',
    "sec-fetch-dest": "empty",
    "sec-fetch-mode": "cors",
    "sec-fetch-site": "same-origin",
    "user-agent": "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) "
    "Chrome/131.0.0.0 Safari/537.36",
}
RETS = {
    "ret-login": ("1015", "login error"),
    "ret-parameter": ("1000", "invalid parameter"),
    "ret-sign": ("1014", "sign error"),
    "ret-rate": ("1057", "too many requests"),
    "ret-risk": ("1019", "shark not pass"),
}
OWN_FAULTS = frozenset({*RETS, "packed-unasked"})
PATH = "/mweb/v1/get_upload_token"
CALLS = ("token",)
HOST_CALLS = imagex_hosts.CALLS


class RefusedError(Exception):
    """The answer carries this `ret`."""

    def __init__(self, ret: str, message: str) -> None:
        super().__init__(message)
        self.ret = ret


@dataclass(frozen=True)
class SignIn:
    """The token service of one region."""

    world: World
    store: Store
    region: str  # "cn" or "us"

    @property
    def _options(self) -> JimengOptions:
        return cast("JimengOptions", self.world.options["jimeng"])

    def endpoint(self) -> Endpoint:
        """The server; a relay may put a path of its own before the vendor's."""
        paths = (PATH, f"/dreamina/us{PATH}")
        app = Starlette(routes=[Route(path, self._call, methods=["POST"]) for path in paths])
        return Endpoint(app, _calls, _refuse, OWN_FAULTS)

    async def _call(self, request: Request) -> Response:
        try:
            fault = fault_of(request)
            if fault and fault.name in RETS:
                raise RefusedError(*RETS[fault.name])
            self._check_session(request)
            _check_body(await request.body())
            if self.region == "us":
                _check_query(request)
            if self._options.strict:
                self._check_all(request)
            return self._answer(request, self._issue())
        except RefusedError as error:
            return self._packed(request, {"ret": error.ret, "errmsg": str(error), "logid": uuid.uuid4().hex})

    def _check_session(self, request: Request) -> None:
        if request.method != "POST" or _cookies(request).get("sessionid") != ACCOUNT[f"session_{self.region}"]:
            raise RefusedError(*RETS["ret-login"])

    def _check_all(self, request: Request) -> None:
        origin = request.headers.get("origin")
        if origin not in {PAGES[self.region], self.world.urls["jimeng" if self.region == "cn" else "dreamina"]}:
            raise RefusedError("1014", "origin is not as the page sends it")
        region = {"referer": f"{origin}/", "appid": APPS[self.region]}
        for name, value in {**SENT, **region, "content-type": "application/json"}.items():
            if request.headers.get(name) != value:
                raise RefusedError("1014", f"{name} is not as the page sends it")
        packings = {one.strip() for one in request.headers.get("accept-encoding", "").split(",")}
        if not packings <= {"gzip", "deflate", "br", "zstd"}:
            raise RefusedError("1014", "accept-encoding is not as the page sends it")
        if not re.fullmatch(_cookie_pattern(self.region), request.headers.get("cookie", "")):
            raise RefusedError("1014", "the cookie is not as the page makes it")
        if ACCOUNT[f"session_{self.region}"] in str(request.url):
            raise RefusedError("1014", "the session stands in the address")

    def _issue(self) -> dict[str, object]:
        options = self._options
        now = self.world.clock.now()
        id_, expires = f"AKTP{secrets.token_hex(16)}", now + options.keys_life
        credentials = Credentials(secrets.token_urlsafe(30), f"STS2{secrets.token_urlsafe(60)}==", expires)
        service = SERVICES[self.region]
        self.store.issue(id_, credentials, service)
        data: dict[str, object] = {
            "access_key_id": id_,
            "secret_access_key": credentials.secret,
            "session_token": credentials.token,
        }
        if options.service_id:
            data["service_id"] = service
        if options.space_name:
            data["space_name"] = service
        if options.upload_domain:
            data["upload_domain"] = self.world.urls["imagex"]
        if options.region:
            data["region"] = REGIONS[self.region]
        match options.expired_time:
            case "text":
                data |= {"expired_time": str(int(expires)), "current_time": str(int(now))}
            case "number":
                data |= {"expired_time": int(expires), "current_time": int(now)}
            case "rfc3339":
                data["expired_time"] = datetime.fromtimestamp(expires, UTC).isoformat().replace("+00:00", "Z")
        return data

    def _answer(self, request: Request, data: dict[str, object]) -> Response:
        if self._options.reply == "flat":
            return self._packed(request, data)
        ret: object = 0 if self._options.reply == "numeric" else "0"
        return self._packed(request, {"ret": ret, "errmsg": "success", "logid": uuid.uuid4().hex, "data": data})

    def _packed(self, request: Request, members: dict[str, object]) -> Response:
        body, headers = json.dumps(members).encode(), {"content-type": "application/json"}
        fault = fault_of(request)
        if fault and fault.name == "packed-unasked":
            headers["content-encoding"] = "compress"
        elif self._options.gzip and "gzip" in request.headers.get("accept-encoding", ""):
            body, headers = gzip.compress(body), {**headers, "content-encoding": "gzip"}
        return Response(body, 200, headers)


def _check_body(body: bytes) -> None:
    try:
        members = json.loads(body)
    except ValueError as error:
        raise RefusedError("1000", "the body is not JSON") from error
    if not isinstance(members, dict) or isinstance(members.get("scene"), bool) or members.get("scene") != 2:
        raise RefusedError("1000", "scene is not the number 2")


def _check_query(request: Request) -> None:
    for name, pattern in QUERY.items():
        if not re.fullmatch(pattern, request.query_params.get(name, "")):
            raise RefusedError("1000", f"{name} is missing or wrong")


def _cookies(request: Request) -> dict[str, str]:
    jar: SimpleCookie = SimpleCookie()
    try:
        jar.load(request.headers.get("cookie", ""))
    except CookieError:
        return {}
    return {name: one.value for name, one in jar.items()}


def _cookie_pattern(region: str) -> str:
    session = ACCOUNT[f"session_{region}"]
    guard = rf"sid_guard={session}%7C\d{{10}}%7C5184000%7CMon%2C\+03-Feb-2025\+08%3A17%3A09\+GMT"
    return (
        rf"_tea_web_id=\d{{19}}; is_staff_user=false; store-region={STORES[region]}; store-region-src=uid; {guard}; "
        rf"uid_tt=(?P<user>[0-9a-f]{{32}}); uid_tt_ss=(?P=user); sid_tt={session}; sessionid={session}; "
        rf"sessionid_ss={session}; sid_tt={session}"
    )


def _calls(scope: Scope) -> tuple[str, ...]:
    return ("token",) if scope["path"].endswith(PATH) else ()


def _refuse(_: Scope, status: int) -> Response:
    return HTMLResponse(f"<html><head><title>{status}</title></head><body><h1>{status}</h1></body></html>", status)


def _build(world: World) -> Mapping[str, Endpoint]:
    store = Store(world.data, world.database)
    unending = Credentials(ACCOUNT["secret_key"], "", float("inf"))
    store.issue(ACCOUNT["access_key"], unending, ACCOUNT["service_sdk"])
    api = imagex.Api(world, store, ACCOUNT["auth_key"], BUCKETS)
    hosts = imagex_hosts.Hosts(world, store, ACCOUNT["auth_key"])
    return {
        "jimeng": SignIn(world, store, "cn").endpoint(),
        "dreamina": SignIn(world, store, "us").endpoint(),
        "imagex": api.endpoint(AWS),
        "veimagex": api.endpoint(VOLCENGINE),
        "tos1": hosts.endpoint(),
        "tos2": hosts.endpoint(),
    }


def _providers(urls: Mapping[str, str]) -> Mapping[str, Mapping[str, object]]:
    tokens = {"jimeng": ACCOUNT["session_cn"], "dreamina": f"us-{ACCOUNT['session_us']}"}
    return {
        name: {"broker": "jimeng", "refresh_token": token, "api": urls[name], "imagex": urls["imagex"]}
        for name, token in tokens.items()
    }


def _at(*calls: str) -> tuple[str, ...]:
    return tuple(f"{name}.{call}" for name in ("tos", "tos1", "tos2") for call in calls)


VENDOR = Vendor(
    name="jimeng",
    services=(
        Service("jimeng", "jimeng", CALLS),
        Service("dreamina", "jimeng", CALLS),
        Service("imagex", "imagex", imagex.CALLS),
        Service("veimagex", "imagex", imagex.CALLS),
        Service("tos1", "tos", HOST_CALLS),
        Service("tos2", "tos", HOST_CALLS),
    ),
    faults={
        **dict.fromkeys((*RETS, "packed-unasked"), ("jimeng.token", "dreamina.token")),
        **dict.fromkeys(imagex.REFUSALS, tuple(f"{name}.{c}" for name in ("imagex", "veimagex") for c in imagex.CALLS)),
        **dict.fromkeys(imagex.COMMIT_FAULTS, ("imagex.commit", "veimagex.commit")),
        **dict.fromkeys(imagex_hosts.BODY_FAULTS, _at("put", "part")),
        **dict.fromkeys(imagex_hosts.LIST_FAULTS, _at("list")),
        **dict.fromkeys(imagex_hosts.MERGE_FAULTS, _at("merge")),
        **dict.fromkeys(imagex_hosts.UPLOAD_FAULTS, _at("part", "list", "merge")),
        **dict.fromkeys(imagex_hosts.ANY_FAULTS, _at(*HOST_CALLS)),
    },
    deferred={},
    secrets=("x-amz-security-token", "x-security-token"),
    options=JimengOptions,
    accounts=ACCOUNT,
    build=_build,
    providers=_providers,
)
