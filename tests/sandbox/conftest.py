"""A sandbox in a thread of its own, and a small client that speaks to it over real sockets."""

import asyncio
import base64
import hashlib
import hmac
import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import dataclass
from urllib.parse import quote

import httpx
import pytest

from dumbwaiter_sandbox import Sandbox

MIB = 1024 * 1024


class Running:
    """One running sandbox and the client's side of its protocols, written from the manual and not from the code."""

    def __init__(self, data, **arguments):
        self.lines: list[str] = []
        self.sandbox = Sandbox(data, print=self.lines.append, **arguments)
        self._ready: Future[None] = Future()
        self._thread = threading.Thread(target=asyncio.run, args=(self._run(),))
        self._thread.start()
        try:
            self._ready.result(30)
        except BaseException:
            self._thread.join(30)
            raise
        self.urls = self.sandbox.urls
        self.account = self.sandbox.accounts["netease"]
        self.http = httpx.Client(trust_env=False, timeout=20, verify=False)  # nothing here is encrypted

    async def _run(self):
        try:
            self._loop, self._over = asyncio.get_running_loop(), asyncio.Event()
            async with self.sandbox:
                self._ready.set_result(None)
                await self._over.wait()
        except BaseException as error:
            if self._ready.done():
                raise
            self._ready.set_exception(error)

    def stop(self):
        self.http.close()
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._over.set)
            self._thread.join(30)
        assert not self._thread.is_alive()

    # Control port.

    def control(self, method, path, **arguments):
        return self.http.request(method, f"{self.urls['sandbox']}/_sandbox{path}", **arguments)

    def faults(self, spec):
        assert self.control("PUT", "/faults", content=spec).status_code == 200

    def options(self, **changes):
        reply = self.control("PUT", "/options", json={"netease": changes})
        assert reply.status_code == 200, reply.text

    def log(self, call=None):
        return [entry for entry in self.control("GET", "/log").json() if call in (None, entry["call"])]

    def objects(self):
        return {entry["key"]: entry for entry in self.control("GET", "/objects").json()}

    def now(self):
        return self.control("GET", "/clock").json()["now"]

    def advance(self, seconds):
        assert self.control("POST", "/clock", json={"advance": seconds}).status_code == 200

    # VOD.

    def signed(self, **changes):
        headers = {
            "AppKey": self.account["app_key"],
            "Nonce": str(time.perf_counter_ns()),
            "CurTime": str(int(self.now())),
        }
        headers |= {"Content-Type": "application/json;charset=utf-8", "secret": self.account["app_secret"]}
        headers |= changes
        text = headers.pop("secret") + headers["Nonce"] + headers["CurTime"]
        return {"CheckSum": hashlib.sha1(text.encode()).hexdigest(), **headers}

    def vod(self, path, body, **changes):
        url = f"{self.urls['vod']}/app/vod/{path}"
        headers = {name: value for name, value in self.signed(**changes).items() if value is not None}
        return self.http.post(url, content=json.dumps(body).encode(), headers=headers)

    def ret(self, path, body):
        answer = self.vod(path, body).json()
        assert answer["code"] == 200, answer
        return answer["ret"]

    def init(self, name="clip.mp4", **members):
        return Grant(
            **{
                "token" if key == "xNosToken" else key: value
                for key, value in self.ret("upload/init", {"originFileName": name, **members}).items()
            }
        )

    # NOS.

    def token(self, bucket, name, expires=4_102_329_600, access=None, secret=None, **policy):
        members = {"Bucket": bucket, "Object": name, "Expires": expires, **policy}
        policy64 = base64.b64encode(json.dumps(members, ensure_ascii=False).encode()).decode()
        key = (secret or self.account["secret_key"]).encode()
        sign = base64.b64encode(hmac.digest(key, policy64.encode(), "sha256")).decode()
        return f"UPLOAD {access or self.account['access_key']}:{sign}:{policy64}"

    def grant(self, name, bucket="voddumb01", **policy):
        return Grant(bucket, name, self.token(bucket, name, **policy))

    def address(self, grant, node="nos1", query=""):
        return f"{self.urls[node]}/{quote(grant.bucket, safe='')}/{quote(grant.object, safe='')}?{query}"

    def put(
        self,
        grant,
        data=b"",
        offset=0,
        complete=False,
        context="",
        node="nos1",
        version="1.0",
        query=None,
        **headers,
    ):
        if query is None:
            query = f"offset={offset}&complete={str(complete).lower()}&version={version}"
            query += f"&context={quote(context, safe='')}" if context else ""
        headers = {"x-nos-token": grant.token} | {name.replace("_", "-"): value for name, value in headers.items()}
        return self.http.post(self.address(grant, node, query), content=data, headers=headers)

    def ask(self, grant, context, node="nos1", flag="uploadContext"):
        query = f"{flag}&context={quote(context, safe='')}&version=1.0"
        return self.http.get(self.address(grant, node, query), headers={"x-nos-token": grant.token})

    def send(self, grant, data, chunk=4 * MIB, node="nos1"):
        """Upload all of it; the last reply."""
        offset, context = 0, ""
        while True:
            part = data[offset : offset + chunk]
            reply = self.put(grant, part, offset, offset + len(part) == len(data), context, node)
            assert reply.status_code == 200, reply.text
            answer = reply.json()
            if offset + len(part) == len(data) == answer["offset"]:
                return answer
            offset, context = answer["offset"], answer["context"]

    def download(self, grant, method="GET", **headers):
        url = f"{self.urls['cdn']}/{quote(grant.bucket)}/{quote(grant.object)}"
        return self.http.request(method, url, headers=headers)


@dataclass
class Grant:
    bucket: str
    object: str
    token: str


@pytest.fixture
def start(tmp_path) -> Iterator[Callable[..., Running]]:
    """Start a sandbox on a folder; every one that still runs is stopped at the end."""
    with ExitStack() as stack:

        def begin(data=None, **arguments):
            running = Running(data or tmp_path / "sandbox", **arguments)
            stack.callback(running.stop)
            return running

        yield begin


@pytest.fixture
def running(start) -> Running:
    return start()
