"""A shop's API: signed calls, one session, and what a refusal means.

The wire format is in CareyShop's API manual, "signature" and "administrator sign-in".
"""

from collections.abc import Callable
from typing import Any

from msgspec import Struct

from dumbwaiter.config.options import CareyShop as Options
from dumbwaiter.doors import Desk
from dumbwaiter.errors import Blocked, Retry
from dumbwaiter.model import Secret
from dumbwaiter.naming import shown
from dumbwaiter.wire import careyshop
from dumbwaiter.wire.address import check_redirect
from dumbwaiter.wire.message import Request, query

SESSION = 86400.0  # seconds until the first renewal, should the shop not say
GET_MAX = 1023  # characters of an address that every server takes
NO_METHOD = "method成员方法不存在"  # what every address of a shop says that is none of its API's


class Session(Struct):
    """A sign-in, with what renews it."""

    token: str
    refresh: str = ""
    token_expires: float = 0.0


class _SignedIn(Struct):
    token: Session


class _Module(Struct):
    name: str = ""
    module: str = ""


class Shop:
    """One account's way into a shop. `platform` gives the name of the sign-in: a second one under it ends the first."""

    def __init__(self, options: Options, secret: Secret, password: Secret, platform: Callable[[], str]) -> None:
        self.api = options.api.rstrip("/")
        self._options = options
        self._secret = secret
        self._password = password
        self._platform = platform
        self._session: Session | None = None
        self._life = SESSION

    async def call(self, desk: Desk, controller: str, method: str, wanted: dict[str, str], shape: Any) -> Any:
        """Calls an operation that needs a sign-in. A session that the shop ended is made anew, once."""
        session = await self.sign_in(desk)
        found = await self._send(desk, controller, method, wanted, session.token)
        if found.status == 401 or found.message in careyshop.SIGN_IN:
            desk.forget("session", session)
            self._session = None
            session = await self.sign_in(desk)
            found = await self._send(desk, controller, method, wanted, session.token)
        if found.status == 200:
            return careyshop.decoded(found.data, shape)
        if found.message.startswith("上传模块名"):
            raise Blocked(await self._no_module(desk, session, found.message))
        raise _refusal(found, method)

    async def _no_module(self, desk: Desk, session: Session, said: str) -> str:
        try:
            found = await self._send(desk, "upload", "get.upload.module", {}, session.token)
            known = careyshop.decoded(found.data, tuple[_Module, ...] | None) if found.status == 200 else ()
        except Retry:
            return f'the shop has no upload module "{self._options.module}": {shown(said[:200])}'
        names = ", ".join(shown(one.module) for one in known or ()) or "none"
        return f'the shop has no upload module "{self._options.module}"; it has: {names}'

    async def sign_in(self, desk: Desk) -> Session:
        """Returns the session in use, or a new one."""
        return await desk.cached("session", self._life, lambda: self._new_session(desk))

    async def _new_session(self, desk: Desk) -> Session:
        """Refreshes a session that still is good, or signs in."""
        now = desk.now(self.api)
        found = None
        if self._session is not None and self._session.refresh and self._session.token_expires > now:
            refresh = {"refresh": self._session.refresh}
            found = await self._send(desk, "admin", "refresh.admin.token", refresh, self._session.token)
        if found is None or found.status != 200:
            wanted = {
                "username": self._options.username,
                "password": self._password.reveal(),
                "platform": self._platform(),
            }
            found = await self._send(desk, "admin", "login.admin.user", wanted, "")
        if found.status != 200:
            raise _refusal(found, "sign-in")
        self._session = careyshop.decoded(found.data, _SignedIn).token
        if self._session.token_expires:
            self._life = max(60.0, self._session.token_expires - desk.now(self.api))
        return self._session

    def signed(
        self, desk: Desk, method: str, wanted: dict[str, str], token: str, *, ahead: float = 0.0
    ) -> dict[str, str]:
        """Returns the parameters of a call with those that every call has; it is dated so many seconds `ahead`."""
        values = {
            **wanted,
            "appkey": self._options.app_key,
            "timestamp": str(int(desk.now(self.api) + ahead)),
            "format": "json",
            "method": method,
            **({"token": token} if token else {}),
        }
        return {**values, "sign": careyshop.sign(self._secret.reveal(), values)}

    async def _send(
        self, desk: Desk, controller: str, method: str, wanted: dict[str, str], token: str
    ) -> careyshop.Envelope:
        """Sends a signed call; a second time when only our clock was wrong, which the answer has set right."""
        found = await self._send_once(desk, controller, method, wanted, token)
        return (
            await self._send_once(desk, controller, method, wanted, token) if found.message == careyshop.LATE else found
        )

    async def _send_once(
        self, desk: Desk, controller: str, method: str, wanted: dict[str, str], token: str
    ) -> careyshop.Envelope:
        values = self.signed(desk, method, wanted, token)
        del values["method"]  # it stands in the path
        url = f"{self.api}/{controller}/method/{method}.html"
        text = query(values.items())
        if self._options.request == "get" and method != "login.admin.user" and len(url) + len(text) < GET_MAX:
            request = Request(method, "GET", f"{url}?{text}")
        else:
            headers = {"content-type": "application/x-www-form-urlencoded"}
            request = Request(method, "POST", url, headers, text.encode())
        reply = await desk.call(request)
        check_redirect(reply, request.url, base=self.api, key="api")
        if reply.status in {404, 405} and not reply.text.lstrip().startswith(b"{"):
            raise Blocked(f"no CareyShop API answers at this address (status {reply.status}): check api")
        return careyshop.envelope(reply)


def _refusal(found: careyshop.Envelope, what: str) -> Exception:
    if found.message in careyshop.ACCOUNT:
        return Blocked(f"the shop {careyshop.ACCOUNT[found.message]} ({found.message})")
    words = f"{found.status} {shown(found.message[:200])}".strip()
    if found.message == NO_METHOD:
        return Blocked(f"the shop knows no {what} at this address ({words}): check api, which ends with its version")
    if found.status in {401, 403} or found.message in careyshop.SIGN_IN:
        return Blocked(f"the shop does not let this account do {what}: {words}")
    return Retry(f"the shop answers {what} with {words}")
