"""NetEase's small calls: enough of LBS and VOD for one upload into a sink, and nothing between the sink and the sender.

The emulator of `dumbwaiter_sandbox` would not do: it registers only what its own nodes received.
"""

import json
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from dumbwaiter_sandbox.netease import nos_token

BUCKET = "voddumb01"
OBJECT = "benchmark.bin"
MONTH = 30 * 86400
PROVIDER = """
[provider.netease]
broker = "netease"
app_key = "benchmark"
app_secret = "benchmark"
api = "{url}"
lbs = "{url}"
cdn = "{url}/{{bucket}}"
"""


class Vendor:
    """Serves until `close`. Its only node is `sink`; every object is of `size` bytes, and of the one name."""

    def __init__(self, sink: str, size: int) -> None:
        self._sink = sink
        self._size = size
        calls: dict[str, Callable[[], Any]] = {
            "/app/vod/upload/init": self._init,
            "/app/vod/video/query": lambda: {"count": 1, "list": [{"objectName": OBJECT, "vid": 1}]},
            "/app/vod/video/get": lambda: {"vid": 1, "origUrl": self.address, "initialSize": self._size},
        }
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(calls, self._nodes))
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self.address = f"{self.url}/{BUCKET}/{OBJECT}"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def config(self) -> str:
        return PROVIDER.format(url=self.url)

    def _nodes(self) -> Any:
        return {"lbs": f"{self.url}/lbs", "upload": [self._sink]}

    def _init(self) -> Any:
        return {"xNosToken": token(), "bucket": BUCKET, "object": OBJECT}


def token() -> str:
    """An upload token of the documented shape and length."""
    policy = {"Bucket": BUCKET, "Object": OBJECT, "Expires": int(time.time()) + MONTH}
    return nos_token.mint("nosak0000000000000000000000000001", "nossk0000000000000000000000000001", policy)


def _handler(calls: dict[str, Callable[[], Any]], nodes: Callable[[], Any]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True  # head and body are two writes, and must not wait for one another

        def do_GET(self) -> None:
            self._answer(nodes() if self.path.startswith("/lbs?") else None)

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            call = calls.get(self.path)
            self._answer({"code": 200, "ret": call()} if call else None)

        def _answer(self, content: Any) -> None:
            body = json.dumps(content).encode()
            self.send_response(200 if content is not None else 404)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
            """Says nothing."""

    return Handler
