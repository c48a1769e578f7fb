"""Who may call NetEase's VOD API, and how often.

NetEase's VOD manual, 'call conventions': AppKey, Nonce, CurTime and CheckSum in every call. The rule: the window of CurTime is
reckoned by the sandbox's clock, the rate by real time.
"""

from collections.abc import Mapping

from starlette.requests import Request

from dumbwaiter_sandbox.netease import nos_token
from dumbwaiter_sandbox.netease.options import NetEaseOptions
from dumbwaiter_sandbox.rate import Rate

NONCE_LIMIT = 128
MESSAGES = {
    400: "bad parameters",
    414: "channelId is empty!",
    700: "internal error",
    710: "authentication failed",
    720: "balance too low",
    721: "service not opened",
    722: "service under review",
    723: "too many requests",
}


class RefusedError(Exception):
    """The envelope carries this code."""

    def __init__(self, code: int, message: str = "") -> None:
        super().__init__(message or MESSAGES.get(code, "error"))
        self.code = code


class Admission:
    """One account's credentials, the nonces it has used and its rate."""

    def __init__(self, account: Mapping[str, str]) -> None:
        self._account = account
        self._nonces: dict[str, float] = {}
        self._rate = Rate()

    def authenticate(self, request: Request, options: NetEaseOptions, now: float) -> None:
        """Check the four headers. Raises RefusedError."""
        key, nonce, curtime, given = (
            request.headers.get(name, "") for name in ("appkey", "nonce", "curtime", "checksum")
        )
        if not (nonce and curtime and given) or key != self._account["app_key"]:
            raise RefusedError(710)
        if len(nonce) > NONCE_LIMIT:
            raise RefusedError(400, f"Nonce has more than {NONCE_LIMIT} characters")
        if not (curtime.isascii() and curtime.isdigit()) or abs(now - int(curtime)) > options.curtime_window:
            raise RefusedError(710, "CurTime is outside the window")
        if given != nos_token.checksum(self._account["app_secret"], nonce, curtime):
            raise RefusedError(710, "CheckSum does not match")
        if options.refuse_replay:
            self._remember(nonce, now, options.curtime_window)

    def _remember(self, nonce: str, now: float, window: float) -> None:
        self._nonces = {old: seen for old, seen in self._nonces.items() if abs(now - seen) <= 2 * window}
        if nonce in self._nonces:
            raise RefusedError(710, "Nonce was used before")
        self._nonces[nonce] = now

    def pace(self, rate: float) -> None:
        """Count one request in. Raises RefusedError for one too many."""
        if not self._rate.takes(rate):
            raise RefusedError(723)
