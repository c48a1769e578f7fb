"""Xinhua image processing (camera360): a signed request buys a JWT, the JWT upload tokens, tasks and their results.

Pictures go to the vendor's Qiniu bucket, each under a key of its own that nothing can overwrite. Two things may cost the
account something, and neither is ever done twice by itself: creating a task (noted before the call, its number right
after) and fetching the picture without watermark (`claim`, at a person's word only). The secret key and the JWT stay in
memory. camera360's interface document "Xinhua image processing"; Qiniu's developer manual, "query the hosts of a bucket".
"""

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar
from urllib.parse import quote, unquote, urlsplit

import msgspec
from msgspec import Struct, field
from msgspec.structs import replace

from dumbwaiter.broker import SLOWER, Broker
from dumbwaiter.config.options import Xinhua as Options
from dumbwaiter.doors import Desk
from dumbwaiter.errors import Blocked, Reject, Retry
from dumbwaiter.model import Ask, Entry, FollowUp, Grant, Limits, Receipt
from dumbwaiter.tickets import QiniuTicket
from dumbwaiter.wire import qiniu
from dumbwaiter.wire.address import allowed, check_redirect
from dumbwaiter.wire.message import Reply, Request, query
from dumbwaiter.wire.xinhua import lifetime, request_token

UC = ("https://uc.qiniuapi.com", "https://kodo-config.qiniuapi.com", "https://uc.qbox.me")  # Qiniu's, best first
HOSTS_LIFE = 3600.0  # Qiniu's own clients keep the hosts of a bucket for half a day
SKEWED = 5.0  # seconds by which a clock must have been set right for a refusal to be its doing
FARTHEST = 30.0  # seconds between two looks at a task
ASKED, UNKNOWN, TURNED_DOWN = "asked", "unknown", "refused"  # beside the vendor's own: init, running, done, failed
LOST = "the answer to its creation was lost, and a second task is not made by itself"
FOREIGN = re.compile(r"[^A-Za-z0-9_.-]")  # what the vendor says nothing of has no place in a key
T = TypeVar("T")


class _Jwt(Struct):
    token: str


class _Token(Struct):
    key: str
    token: str


class _Tokens(Struct):
    tokens: tuple[_Token, ...]
    base: str = field(name="baseURL")


class _Task(Struct):
    key: str
    id: str = field(name="taskID")


class _Tasks(Struct):
    data: tuple[_Task, ...]


class _State(Struct):
    """How a task stands; members may be missing, empty or null as long as it is not done."""

    status: str = field(name="taskStatus")
    message: str | None = field(name="taskMessage", default=None)
    image: str | None = None
    detected: str | None = field(name="detectStatus", default=None)
    details: tuple[str, ...] | str | None = field(name="detectMessage", default=None)

    @property
    def facts(self) -> dict[str, str]:
        """What is worth keeping, under the vendor's names."""
        details = self.details if isinstance(self.details, str) else "; ".join(self.details or ())
        named = {"taskMessage": self.message, "detectStatus": self.detected, "detectMessage": details}
        return {"taskStatus": self.status, **{name: text[:1000] for name, text in named.items() if text}}


class _Domains(Struct, frozen=True):
    domains: tuple[str, ...] = ()
    old: tuple[str, ...] = ()


class _Region(Struct):
    up: _Domains = _Domains()


class _Hosts(Struct):
    hosts: tuple[_Region, ...] = ()


class _Answer(NamedTuple):
    """An answer with its envelope, if it had one, taken off."""

    status: int
    members: dict[str, Any]
    said: str
    after: float | None


class Xinhua(Broker):
    """One key pair's account."""

    follows = True
    requests = 10.0  # the vendor names no limit
    batch = 20  # keys in one call; the vendor names no limit there either

    def __init__(self, options: Options) -> None:
        self._options = options
        self._secret = options.secret_key.read()
        self._life = float(options.token_life)
        self._announced: set[str] = set()  # jobs whose task is noted as asked for, and was not asked for yet

    # Grants

    async def grants(self, asks: Sequence[Ask], desk: Desk) -> Sequence[Grant]:
        keys = [ask.key if ask.named else ask.held or f"{self._options.prefix}{ask.seed}.jpg" for ask in asks]
        tokens: dict[str, str] = {}
        base = ""
        for _ in range(2):
            answer = await self._tokens([key for key in keys if key not in tokens], desk)
            base = answer.base.rstrip("/")
            tokens |= {one.key: one.token for one in answer.tokens if one.key in keys and _is_for(one)}
            if len(tokens) == len(set(keys)):
                return [
                    await self._grant(ask, key, tokens[key], base, desk) for ask, key in zip(asks, keys, strict=True)
                ]
        raise Retry("Xinhua gives upload tokens for other keys than those asked for: a cache may stand between")

    def key(self, proposed: str, *, named: bool) -> str | None:
        return f"{self._options.prefix}{FOREIGN.sub('_', proposed)}" if named else None

    async def _tokens(self, keys: Sequence[str], desk: Desk) -> _Tokens:
        for _ in range(2):  # once is a bad moment of a proxy's
            answer = await self._ask_tokens(keys, desk)
            if not _is_refused(answer):
                return _shaped(answer, "upload tokens", _Tokens)
        if len(keys) > 1:  # it may be for one key of them: each is asked for alone from now on
            self.batch = 1
            raise Retry(
                f"Xinhua gives no upload tokens for {len(keys)} files at once (status {answer.status}{answer.said})"
            )
        plain = f"{self._options.prefix}{desk.nonce()[:24]}.jpg"
        if not _is_refused(await self._ask_tokens([plain], desk)):
            self.batch = Xinhua.batch
            raise Reject(f"Xinhua gives no upload token for the key {keys[0]} (status {answer.status}{answer.said})")
        raise Blocked(
            f"Xinhua gives no upload tokens (status {answer.status}{answer.said}); should a proxy drop the body of a "
            'GET, request = "post" or "query" may help'
        )

    async def _ask_tokens(self, keys: Sequence[str], desk: Desk) -> _Answer:
        method, path, members = "GET", "/v1/upload/token", {"keys": keys}
        match self._options.request:
            case "post":
                method = "POST"
            case "query":
                path, members = f"{path}?{query(('keys', key) for key in keys)}", {}
        return await self._bearer(desk, "upload tokens", method, path, members, "tokens")

    async def _grant(self, ask: Ask, key: str, token: str, base: str, desk: Desk) -> Grant:
        policy = qiniu.policy(token)
        facts = {"base": base, **({"bucket": policy.bucket} if policy else {})}
        urls = await self._hosts(token, policy.bucket if policy else None, desk)
        ticket = QiniuTicket(urls, token, key, {"x:name": qiniu.plain(ask.name)}, facts)
        if policy is None:
            return Grant(ticket, key)
        limits = policy.limits
        ends = None if policy.deadline is None else policy.deadline - desk.skew(self._options.api)
        # No picture is empty, whether the policy says so or not.
        return Grant(ticket, key, ends, Limits(limits.size_min or 1, limits.size_max, limits.mime))

    async def _hosts(self, token: str, bucket: str | None, desk: Desk) -> tuple[str, ...]:
        if self._options.upload is not None:
            return (self._options.upload,)
        if bucket is None:
            raise Blocked('Xinhua\'s upload token does not say which bucket it is for: set upload = "https://…"')
        parameters = query([("ak", qiniu.access_key(token)), ("bucket", bucket)])
        return await desk.cached(f"hosts of {bucket}", HOSTS_LIFE, lambda: self._ask_hosts(parameters, desk))

    async def _ask_hosts(self, parameters: str, desk: Desk) -> tuple[str, ...]:
        trouble = Retry("Qiniu names no upload host")
        for base in (self._options.uc,) if self._options.uc else UC:
            try:
                reply = await desk.call(Request("upload hosts", "GET", f"{base.rstrip('/')}/v4/query?{parameters}"))
                if reply.status == 631:
                    raise Blocked("Qiniu does not know the bucket of Xinhua's upload token (status 631): set upload")
                if reply.status != 200:
                    raise Retry(f"Qiniu names no upload host (status {reply.status})", after=reply.after)
                answer = reply.json(_Hosts)
            except Retry as error:
                trouble = error
                continue
            scheme = urlsplit(base).scheme
            named = [f"{scheme}://{host}" for one in answer.hosts[:1] for host in (*one.up.domains, *one.up.old)]
            if hosts := tuple(url for url in named if allowed(url, base=base)):
                return hosts
        raise trouble

    async def confirm(self, grant: Grant, size: int, desk: Desk) -> Receipt | None:
        """Reads the picture back: it is small, and a download network's own tag need not be the content's hash."""
        ticket: QiniuTicket = grant.ticket
        url = _address(ticket.facts["base"], ticket.key or "")
        reply = await desk.call(Request("object", "GET", url))
        if reply.status != 200:
            raise Retry(
                f"the picture is at Xinhua, but cannot be read there yet (status {reply.status})", after=reply.after
            )
        etag = qiniu.Etag()
        etag.update(reply.body)
        return Receipt(ticket.key or "", etag.text(), url)

    # Tasks

    async def follow_up(self, ask: Ask, receipt: Receipt, tries: int, desk: Desk) -> FollowUp:
        """Has the picture processed, if so configured, and follows that to its end."""
        receipt = replace(receipt, url=receipt.url or _address(receipt.facts.get("base", ""), receipt.key))
        if not self._options.process:
            return FollowUp(receipt)
        if "taskID" in receipt.facts:
            return await self._look(receipt, tries, desk)
        if "taskStatus" not in receipt.facts:
            await self._jwt(desk)  # what is wrong with the account shows before anything is noted
            self._announced.add(ask.seed)
            return FollowUp(receipt.with_facts(taskStatus=ASKED), later=0.0)
        if ask.seed not in self._announced and not self._options.repeat_task:
            return FollowUp(receipt.with_facts(taskStatus=UNKNOWN, taskMessage=LOST))
        return await self._create(ask, receipt, desk)

    async def _create(self, ask: Ask, receipt: Receipt, desk: Desk) -> FollowUp:
        """Creates the task. What certainly failed may be tried again, what may have worked is not."""
        self._announced.discard(ask.seed)  # at once: a call that is ended from outside may have worked as well
        try:
            answer = await self._bearer(desk, "task", "POST", "/v1/image/task", {"keys": [receipt.key]}, "data")
        except (Retry, Blocked) as trouble:
            if isinstance(trouble, Retry) and not trouble.void:
                raise
            blocked = isinstance(trouble, Blocked)
            after = trouble.after or SLOWER if isinstance(trouble, Retry) else 0.0
            return FollowUp(_without(receipt, "taskStatus"), later=after, error=str(trouble), blocked=blocked)
        if 400 <= answer.status < 500:
            return FollowUp(receipt.with_facts(taskStatus=TURNED_DOWN, taskMessage=_sentence("a task", answer)))
        task = next((one for one in _shaped(answer, "task", _Tasks).data if one.key == receipt.key), None)
        if task is None:
            raise Retry("Xinhua's answer holds no task for this picture")
        since = str(int(desk.now(self._options.api)))
        noted = receipt.with_facts(taskID=task.id, taskStatus="init", taskSince=since)
        return FollowUp(noted, later=self._wait(0, desk))

    async def _look(self, receipt: Receipt, tries: int, desk: Desk) -> FollowUp:
        """Asks how the task stands; this costs nothing."""
        answer = await self._ask_task(desk, receipt.facts["taskID"])
        if 400 <= answer.status < 500:
            return FollowUp(receipt.with_facts(taskStatus=UNKNOWN, taskMessage=_sentence("the task", answer)))
        state = _shaped(answer, "task", _State)
        receipt = receipt.with_facts(**state.facts)
        result = None
        if state.status == "done" and state.image:
            result = await self._result(receipt, state.image, "watermark", desk)
            receipt = receipt.with_facts(image=state.image)
        seen = result is None or result.url is None or result.size is not None
        if state.status == "failed" or (state.status == "done" and seen):
            return FollowUp(receipt, (result,) if result else ())
        since = float(receipt.facts.get("taskSince", "0"))
        if desk.now(self._options.api) - since > self._options.patience:
            gave_up = f"not followed further after {self._options.patience:g} seconds"
            return FollowUp(receipt.with_facts(taskMessage=gave_up), (result,) if result else ())
        return FollowUp(receipt, later=self._wait(tries - 2, desk))  # two earlier calls noted and created it

    def _wait(self, looks: int, desk: Desk) -> float:
        """Returns the seconds until the next look, a quarter of them by chance: many tasks shall not be asked for at once."""
        spread = 0.75 + 0.25 * int(desk.nonce()[:4], 16) / 0xFFFF
        return float(spread * min(FARTHEST, self._options.poll * 1.5 ** min(max(looks, 0), 50)))

    async def _ask_task(self, desk: Desk, task: str) -> _Answer:
        path = f"/v1/image/watermark/{quote(task, safe='')}"
        return await self._bearer(desk, "task", "POST", path, None, "taskStatus")

    async def _result(self, receipt: Receipt, image: str, label: str, desk: Desk) -> Receipt:
        """Returns the receipt of a processed picture; without its size when it cannot be seen yet. Raises nothing."""
        base = receipt.facts.get("base", "")
        url = image if "://" in image else _address(base, image)
        below = base if base and url.startswith(f"{base}/") else "/".join(url.split("/", 3)[:3])
        key = unquote(url.removeprefix(f"{below}/").partition("?")[0])
        facts = {name: value for name, value in receipt.facts.items() if name in {"bucket", "taskID"}}
        result = Receipt(key, url=url, facts={**facts, "of": receipt.key}, label=label)
        if not allowed(url, base=self._options.api, path=True):
            return replace(result, url=None)
        try:
            reply = await desk.call(Request("result", "HEAD", url))
        except Retry:
            return result
        length = reply.headers.get("content-length", "")
        return replace(result, size=int(length)) if reply.status == 200 and length.isdigit() else result

    async def claim(self, entry: Entry, intend: Callable[[], Awaitable[None]], desk: Desk) -> Receipt:
        if "of" in entry.facts:
            raise Reject("Xinhua made this picture of another one: claim that one, beside which this one stands")
        task = entry.facts.get("taskID")
        if task is None:
            raise Reject("Xinhua made no task for this picture, so there is nothing to claim: set process = true")
        state = await self._ask_task(desk, task)
        if 400 <= state.status < 500:
            raise Reject(_sentence("the task", state))
        stands = _shaped(state, "task", _State).status
        if stands != "done":
            raise Reject(f'the task of this picture is not done: it is "{stands}"')
        await intend()
        path = f"/v1/image/unwatermark/{quote(task, safe='')}"
        answer = await self._bearer(desk, "claim", "POST", path, None, "image")
        if 400 <= answer.status < 500:
            raise Reject(_sentence("the picture without watermark", answer))
        image = answer.members.get("image")
        if not isinstance(image, str) or not image:
            raise Retry("Xinhua's answer names no picture")
        return await self._result(Receipt(entry.key, facts=dict(entry.facts)), image, "claimed", desk)

    # Calls

    async def _jwt(self, desk: Desk) -> str:
        return await desk.cached("jwt", self._life, lambda: self._sign_in(desk))

    async def _sign_in(self, desk: Desk) -> str:
        answer = await self._ask_jwt(desk)
        if answer.status in {400, 401, 403}:
            raise Blocked(
                f"Xinhua refuses access_key, secret_key, models or token_life (status {answer.status}{answer.said})"
            )
        if 400 <= answer.status < 500:
            raise Blocked(_sentence("a sign-in", answer))
        jwt = _shaped(answer, "sign-in", _Jwt).token
        self._life = lifetime(jwt) or self._options.token_life
        return jwt

    async def _ask_jwt(self, desk: Desk) -> _Answer:
        """Asks for a JWT; a second time when the refusal has set our clock right."""
        options = self._options
        skew = desk.skew(options.api)
        answer = await self._request_jwt(desk)
        if answer.status in {400, 401, 403} and abs(desk.skew(options.api) - skew) > SKEWED:
            return await self._request_jwt(desk)
        return answer

    async def _request_jwt(self, desk: Desk) -> _Answer:
        options = self._options
        now = desk.now(options.api)
        token = request_token(options.access_key, self._secret.reveal(), now, options.token_life, options.models or ())
        return _opened(await self._call(desk, "sign-in", "POST", "/v1/token/jwt", {"token": token}), "token")

    async def _bearer(
        self, desk: Desk, what: str, method: str, path: str, members: Mapping[str, object] | None, wanted: str
    ) -> _Answer:
        """Makes a call that needs the JWT; a second time with a new one. Raises `Blocked` when that is refused too."""
        for _ in range(2):
            try:
                jwt = await self._jwt(desk)
            except Retry as trouble:
                trouble.void = True  # the call itself was not made, or was refused
                raise
            reply = await self._call(desk, what, method, path, members, jwt)
            if reply.status not in {401, 403}:
                return _opened(reply, wanted)
            desk.forget("jwt", jwt)
        raise Blocked(f"Xinhua refuses the account (status {reply.status}{_opened(reply, wanted).said})")

    async def _call(
        self, desk: Desk, what: str, method: str, path: str, members: Mapping[str, object] | None, jwt: str = ""
    ) -> Reply:
        headers = {"Content-Type": "application/json"} if members else {}
        if jwt:
            # A cache must not give the answer to another GET: what is asked for stands in the body.
            headers |= {"Authorization": f"Bearer {jwt}", "Cache-Control": "no-store"}
        body = msgspec.json.encode(members) if members else b""
        url = f"{self._options.api.rstrip('/')}{path}"
        reply = await desk.call(Request(what, method, url, headers, body))
        check_redirect(reply, url, base=self._options.api, key="api")
        if reply.status == 429:
            raise Retry("Xinhua asks for a slower pace", after=reply.after or SLOWER, void=True)
        if reply.is_temporary or not (200 <= reply.status < 300 or 400 <= reply.status < 500):
            # Who is overloaded has begun nothing.
            raise Retry(f"Xinhua answers {what} with {reply.status}", after=reply.after, void=reply.status == 503)
        return reply


def _opened(reply: Reply, wanted: str) -> _Answer:
    """Reads an answer, bare or in the envelope of the vendor's other services; an error in it counts as status 400.

    Raises `Retry` for a success that is not the expected JSON.
    """
    members = reply.members
    if members is None:
        if reply.status < 300:
            raise reply.foreign(f"the server answered {reply.status} with something that is not the expected JSON")
        members = {}
    words = next((members[name] for name in ("message", "error", "msg") if isinstance(members.get(name), str)), "")
    said = f": {words[:200]}" if words else ""
    status = reply.status
    if status < 300 and any(_is_error(members.get(name)) for name in ("status", "code")):
        status = 402 if _is_quota(words) else 400
    data = members.get("data")
    if isinstance(data, dict) and (wanted in data or wanted not in members):
        members = data
    return _Answer(status, members, said, reply.after)


def _is_refused(answer: _Answer) -> bool:
    return 400 <= answer.status < 500 and answer.status != 402


def _is_error(code: object) -> bool:
    return isinstance(code, int) and code not in {0, 200}


def _is_quota(words: str) -> bool:
    return "次数" in words or "quota" in words.lower()


def _shaped(answer: _Answer, what: str, shape: type[T]) -> T:
    """Returns an answer's members as `shape`. Raises `Blocked` or `Reject` for a refusal, `Retry` for anything else."""
    if answer.status == 402:
        raise Blocked(f"Xinhua's quota is used up{answer.said}")
    if answer.status >= 400:
        raise Reject(f"Xinhua refuses {what} (status {answer.status}{answer.said})")
    try:
        return msgspec.convert(answer.members, shape, strict=False)
    except msgspec.ValidationError as error:
        raise Retry(f"Xinhua's answer to {what} lacks something: {error}") from None


def _sentence(what: str, answer: _Answer) -> str:
    if answer.status == 402:
        return f"Xinhua refuses {what}: the quota is used up{answer.said}"
    return f"Xinhua refuses {what} (status {answer.status}{answer.said})"


def _is_for(one: _Token) -> bool:
    """False when a token says that it is for another key than it is labelled with."""
    policy = qiniu.policy(one.token)
    return policy is None or policy.key is None or policy.key == one.key


def _address(base: str, key: str) -> str:
    return f"{base}/{quote(key)}"


def _without(receipt: Receipt, name: str) -> Receipt:
    return replace(receipt, facts={one: value for one, value in receipt.facts.items() if one != name})
