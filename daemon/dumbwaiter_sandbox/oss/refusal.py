"""How OSS says no: an error in XML. OSS's manual, 'error responses'."""

import uuid
from collections.abc import Mapping
from xml.sax.saxutils import escape

from starlette.responses import Response

CODES = {
    400: "InvalidArgument",
    403: "AccessDenied",
    404: "NoSuchKey",
    429: "TotalQpsLimitExceeded",
    500: "InternalError",
    503: "ServiceUnavailable",
}


class RefusedError(Exception):
    """The request is refused; `extra` stands in the answer."""

    def __init__(self, status: int, code: str, message: str = "", **extra: str) -> None:
        super().__init__(message or code)
        self.status = status
        self.code = code
        self.extra = extra


def respond(status: int, code: str = "", message: str = "", extra: Mapping[str, str] | None = None) -> Response:
    """The answer to a refused request."""
    code = code or CODES.get(status, "Error")
    number = uuid.uuid4().hex[:24].upper()
    members = {"Code": code, "Message": message or code, "RequestId": number, "HostId": "127.0.0.1", **(extra or {})}
    text = "".join(f"<{name}>{escape(value)}</{name}>" for name, value in members.items())
    xml = f'<?xml version="1.0" encoding="UTF-8"?>\n<Error>{text}</Error>'
    return Response(xml, status, {"x-oss-request-id": number, "server": "AliyunOSS"}, "application/xml")
