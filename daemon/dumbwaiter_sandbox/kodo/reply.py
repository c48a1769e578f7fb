"""What Kodo's hosts answer with."""

import uuid
from collections.abc import Mapping
from typing import Any

from starlette.responses import JSONResponse, Response


def json_answer(members: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    marks = {"cache-control": "no-store", "x-reqid": uuid.uuid4().hex[:16], "x-log": "sandbox", **(headers or {})}
    return JSONResponse(members, status, marks)


def json_error(status: int, message: str) -> Response:
    return json_answer({"error": message, "code": status}, status)
