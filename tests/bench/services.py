"""The small calls before an upload: a service that gives permissions, and what it makes of a configuration.

Three kinds: "form" (a recipe whose one permission serves many files), "oss" (CareyShop's temporary credentials, so that
a file goes in parts with CRC-64) and "qiniu" (a recipe with an upload token of Qiniu's, so that a file goes in parts
with SHA-1). Nothing here is near the bytes.
"""

import base64
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

MONTH = 30 * 86400
NAME = "bench"
FORM = """
[provider.bench]
broker = "recipe"
transport = "form"
many = true
life = "1h"
[provider.bench.request]
url = "{url}/grant"
method = "GET"
[provider.bench.reply]
url = "url"
fields = "fields"
"""
QINIU = """
[provider.bench]
broker = "recipe"
transport = "qiniu"
life = "1h"
[provider.bench.request]
url = "{url}/grant?{{seed}}"
method = "GET"
[provider.bench.reply]
url = "url"
token = "token"
"""
OSS = """
[provider.bench]
broker = "careyshop"
api = "{url}/api/v1"
app_key = "benchmark"
app_secret = "benchmark"
username = "benchmark"
password = "benchmark"
module = "aliyun"
terminal = "app"
addressing = "path"
endpoint = "{sink}"
"""
CONFIGS = {"form": FORM, "qiniu": QINIU, "oss": OSS}


class Service:
    """Serves inside `with`; sends every file to `sink`."""

    def __init__(self, kind: str, sink: str) -> None:
        self._kind = kind
        self._sink = sink

    def __enter__(self) -> Self:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self._answer))
        self._url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def config(self) -> str:
        return CONFIGS[self._kind].format(url=self._url, sink=self._sink)

    def _answer(self, path: str) -> Any:
        if path.endswith("/login.admin.user.html"):
            return {"status": 200, "data": {"token": {"token": "t", "token_expires": time.time() + MONTH}}}
        if path.endswith("/get.upload.token.html"):
            return {
                "status": 200,
                "data": {"expires": time.time() + MONTH, "bucket": NAME, "credentials": _credentials()},
            }
        return {"url": self._sink, "fields": {"token": "t" * 200}, "token": token()}


def _credentials() -> dict[str, str]:
    return {"access_key_id": "a" * 24, "access_key_secret": "s" * 44, "security_token": "t" * 600}


def token() -> str:
    """An upload token of Qiniu's, of the documented shape."""
    policy = json.dumps({"scope": NAME, "deadline": int(time.time()) + MONTH}).encode()
    return f"{'k' * 40}:{base64.urlsafe_b64encode(b'm' * 20).decode()}:{base64.urlsafe_b64encode(policy).decode()}"


def _handler(answer: Any) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            body = json.dumps(answer(self.path)).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET

        def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
            """Says nothing."""

    return Handler
