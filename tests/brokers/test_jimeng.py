"""What the answers of Jimeng, Dreamina and ImageX are taken to mean, with a desk that plays them."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar
from urllib.parse import parse_qsl, urlsplit

import pytest

from answers import Answers
from dumbwaiter.brokers.jimeng import Jimeng
from dumbwaiter.config import options as settings
from dumbwaiter.config.values import SecretSource
from dumbwaiter.errors import Blocked, Failure, Reauth, Reject, Retry, Verdict
from dumbwaiter.model import Ask, Grant, Receipt
from dumbwaiter.tickets import ImageXTicket
from dumbwaiter.wire.message import Reply, Request

T = TypeVar("T")
NOW = 1_767_323_045.0
SESSION = "0123456789abcdef0123456789abcdef"
ASK = Ask("w", "dir/a.png", "dir/a.png", 5, "image/png", "seed")
URI = "tos-cn-i-tb4s082cfz/00112233445566778899aabbccddeeff"
KEYS = {"access_key_id": "AKTP1", "secret_access_key": "s3cret", "session_token": "STS2abc"}
TICKET = ImageXTicket(("https://tos.example.com",), URI, "SpaceKey/x", "session==", "tb4s082cfz")
GRANT = Grant(TICKET, URI.partition("/")[2])


class Desk(Answers):
    """A desk whose calls are answered from a list."""

    def __init__(self, *answers: object) -> None:
        super().__init__(*answers)
        self.held: dict[str, Any] = {}

    def now(self, url: str) -> float:
        return NOW

    def skew(self, url: str) -> float:
        return 7.0

    async def cached(self, name: str, life: float, fetch: Callable[[], Awaitable[T]]) -> T:
        if name not in self.held:
            self.held[name] = await fetch()
        value: T = self.held[name]
        return value

    def forget(self, name: str, value: object) -> None:
        if self.held.get(name) == value:
            del self.held[name]

    def nonce(self) -> str:
        return "00112233445566778899aabbccddeeff"


def broker(token: str = SESSION, **options: Any) -> Jimeng:
    return Jimeng(settings.Jimeng(refresh_token=SecretSource("literal", token), **options))


def signed_in(**more: object) -> dict[str, object]:
    return {"ret": "0", "errmsg": "success", "data": {**KEYS, **more}}


def applied(**more: object) -> dict[str, object]:
    address = {
        "SessionKey": "session==",
        "UploadHosts": ["tos-d-x-lf.douyin.com", "http://127.0.0.1:1"],
        "UploadHeader": None,
        "StoreInfos": [{"StoreUri": URI, "Auth": "SpaceKey/tb4s082cfz/1/:version:v2:h.eyJleHAiOjE3NjczNDQ2NDV9.s"}],
    }
    return {"ResponseMetadata": {"RequestId": "1"}, "Result": {"UploadAddress": {**address, **more}}}


def committed(*results: object, plugins: object = ()) -> dict[str, object]:
    return {"ResponseMetadata": {}, "Result": {"Results": results, "PluginResult": plugins}}


def refused(
    number: int, code: str | None, status: int = 400, request: str | None = "", words: str | None = "why"
) -> Reply:
    error = {"CodeN": number, "Code": code, "Message": words}
    return Reply(status, {}, json.dumps({"ResponseMetadata": {"RequestId": request, "Error": error}}).encode())


def grant(desk: Desk, one: Jimeng | None = None, ask: Ask = ASK) -> Grant:
    (made,) = asyncio.run((one or broker()).grants([ask], desk))
    assert not desk.answers
    return made


def confirm(desk: Desk, size: int = 5) -> Receipt | None:
    made = asyncio.run(broker().confirm(GRANT, size, desk))
    assert not desk.answers
    return made


def parameters(request: Request) -> dict[str, str]:
    return dict(parse_qsl(urlsplit(request.url).query))


def test_the_chinese_sign_in_is_sent_to_the_letter() -> None:
    desk = Desk(signed_in(), applied())
    grant(desk)
    request = desk.asked[0]
    assert (request.method, request.url) == ("POST", "https://jimeng.jianying.com/mweb/v1/get_upload_token")
    assert request.body == b'{"scene":2}'
    assert request.headers["Origin"] == "https://jimeng.jianying.com"
    assert request.headers["Referer"] == "https://jimeng.jianying.com/"
    assert request.headers["Appid"] == "513695"
    assert request.headers["Sec-Ch-Ua"] == '"Google Chrome";v="131", "Chromium";v="131", "Not_A Brand";v="24"'
    assert f"; sessionid={SESSION};" in request.headers["Cookie"]
    assert "store-region=cn-gd" in request.headers["Cookie"]
    assert SESSION not in request.url


def test_the_chinese_pages_origin_is_told_wherever_it_is_sent() -> None:
    desk = Desk(signed_in(), applied())
    grant(desk, broker(SESSION, api="https://relay.example/cn"))
    headers = desk.asked[0].headers
    assert (headers["Origin"], headers["Referer"]) == ("https://jimeng.jianying.com", "https://jimeng.jianying.com/")
    assert headers["Accept-Encoding"] == "gzip, deflate, br, zstd"


def test_the_vendors_own_international_address_is_its_own_origin() -> None:
    desk = Desk(signed_in(), applied())
    grant(desk, broker(f"us-{SESSION}"))
    headers = desk.asked[0].headers
    origin = "https://dreamina-api.us.capcut.com"
    assert (headers["Origin"], headers["Referer"]) == (origin, f"{origin}/")


def test_the_international_sign_in_has_four_parameters() -> None:
    desk = Desk(signed_in(), applied())
    grant(desk, broker(f"US-{SESSION}", api="https://relay.example/dreamina/us/"))
    request = desk.asked[0]
    assert request.url == (
        "https://relay.example/dreamina/us/mweb/v1/get_upload_token"
        "?aid=513641&web_version=7.5.0&da_version=3.3.2&aigc_features=app_lip_sync"
    )
    assert request.headers["Origin"] == "https://api-proxy-1.deno.dev"
    assert request.headers["Referer"] == "https://api-proxy-1.deno.dev/"
    assert request.headers["Appid"] == "513641"
    assert f"; sessionid={SESSION};" in request.headers["Cookie"]
    assert "store-region=us;" in request.headers["Cookie"]


@pytest.mark.parametrize(
    ("token", "more", "host", "service", "region"),
    [
        (SESSION, {}, "imagex.bytedanceapi.com", "tb4s082cfz", "cn-north-1"),
        (SESSION, {"space_name": "space"}, "imagex.bytedanceapi.com", "space", "cn-north-1"),
        (SESSION, {"space_name": "space", "service_id": "id"}, "imagex.bytedanceapi.com", "id", "cn-north-1"),
        (SESSION, {"upload_domain": "up.example.com", "region": "cn"}, "up.example.com", "tb4s082cfz", "cn-north-1"),
        (SESSION, {"upload_domain": "http://127.0.0.1:1"}, "imagex.bytedanceapi.com", "tb4s082cfz", "cn-north-1"),
        (f"us-{SESSION}", {}, "imagex16-normal-us-ttp.capcutapi.us", "wopfjsm1ax", "us-east-1"),
        (
            f"us-{SESSION}",
            {"space_name": "space", "service_id": "id", "region": "useast5"},
            "imagex16-normal-us-ttp.capcutapi.us",
            "space",
            "useast5",
        ),
    ],
)
def test_what_signing_in_does_not_say_has_a_default(
    token: str, more: dict[str, str], host: str, service: str, region: str
) -> None:
    desk = Desk(signed_in(**more), applied())
    grant(desk, broker(token))
    request = desk.asked[1]
    assert urlsplit(request.url).netloc == host
    assert parameters(request)["ServiceId"] == service
    assert (
        f"/{region}/imagex/aws4_request, SignedHeaders=x-amz-date;x-amz-security-token,"
        in request.headers["authorization"]
    )


@pytest.mark.parametrize("answer", [KEYS, {"ret": 0, "data": KEYS}, {"ret": "0", **KEYS}])
def test_flat_and_enveloped_answers_are_read(answer: object) -> None:
    made = grant(Desk(answer, applied()))
    assert made.key == "00112233445566778899aabbccddeeff"
    assert made.expires_at == 1767344645 - 7
    assert made.ticket.hosts == ("https://tos-d-x-lf.douyin.com",)  # none inside our own network
    assert made.ticket.session == "session=="


@pytest.mark.parametrize(
    ("headers", "read"),
    [(None, {}), ({"X-A": "b"}, {"x-a": "b"}), ([{"Key": "X-A", "Value": "b"}], {"x-a": "b"}), ({"X-A": "b\r\n"}, {})],
)
def test_headers_of_the_hosts_come_in_three_forms(headers: object, read: dict[str, str]) -> None:
    assert grant(Desk(signed_in(), applied(UploadHeader=headers))).ticket.headers == read


@pytest.mark.parametrize(
    ("answer", "verdict", "words"),
    [
        ({"ret": "1015", "errmsg": "login error"}, Blocked, "put the new sessionid into refresh_token"),
        ({"ret": "1019", "errmsg": "shark"}, Blocked, "takes us for a robot"),
        ({"ret": 1057, "errmsg": "slow"}, Retry, "too many requests"),
        ({"ret": "1000", "errmsg": "bad"}, Blocked, "refuses to give an upload token"),
        ({"ret": "-7"}, Retry, "ret -7"),
        ({"ret": "²"}, Retry, "ret ²"),
        ({"ret": "9" * 5000}, Retry, "^Jimeng answers ret 99999999999999999999$"),
        ({"ret": "0", "data": None}, Retry, "holds no keys"),
        ({"ret": "0", "data": {**KEYS, "session_token": ""}}, Retry, "holds no keys"),
        (Reply(200, {}, b"<html>"), Retry, "not the expected JSON"),
        (Reply(401), Blocked, "refuses the session"),
        (Reply(502, {}, b"", 5.0), Retry, "502"),
        (Reply(400, {}, b'{"ret":"1015"}'), Blocked, "session is over"),
    ],
)
def test_a_refused_sign_in_says_what_to_do(answer: object, verdict: type[Verdict], words: str) -> None:
    with pytest.raises(verdict, match=words.replace("(", r"\(")) as caught:
        grant(Desk(answer))
    assert SESSION not in str(caught.value)


def test_an_empty_file_is_refused_without_a_call() -> None:
    with pytest.raises(Reject, match="0 bytes"):
        grant(Desk(), ask=Ask("w", "a", "a", 0, "", ""))


def test_refused_keys_are_replaced_once() -> None:
    desk = Desk(signed_in(), refused(0, "InvalidSecretToken", 401), signed_in(access_key_id="AKTP2"), applied())
    grant(desk)
    assert "Credential=AKTP2/" in desk.asked[-1].headers["authorization"]
    desk = Desk(signed_in(), refused(100009, None, 401, None, None), signed_in(access_key_id="AKTP2"), applied())
    grant(desk)
    assert "Credential=AKTP2/" in desk.asked[-1].headers["authorization"]
    with pytest.raises(Retry, match="made a moment ago"):
        grant(Desk(signed_in(), refused(100010, "SignatureDoesNotMatch"), signed_in(), refused(100009, "")))


def test_keys_near_their_end_are_replaced_before_they_are_used() -> None:
    one = broker()
    desk = Desk(signed_in(expired_time=str(NOW - 1)), signed_in(), applied())
    grant(desk, one)
    assert [request.what for request in desk.asked] == ["upload token", "upload token", "ApplyImageUpload"]


def test_a_wrong_clock_is_put_right_by_the_servers_own_time() -> None:
    desk = Desk(signed_in(), refused(100006, "InvalidTimestamp", request="20260102120405ABC"), applied())
    grant(desk)
    assert desk.asked[1].headers["x-amz-date"] == "20260102T030405Z"
    assert desk.asked[2].headers["x-amz-date"] == "20260102T040405Z"
    with pytest.raises(Retry, match="clock"):
        grant(Desk(signed_in(), refused(100006, ""), refused(100006, "")))


@pytest.mark.parametrize(
    ("reply", "applying", "committing"),
    [
        (refused(600014, "TooMany", 200), Retry, Retry),
        (refused(0, "FlowLimitExceeded", 429), Retry, Retry),
        (refused(0, "InternalError", 500), Retry, Retry),
        (Reply(502, {}, b"<html>"), Retry, Retry),
        (Reply(200, {}, b""), Retry, Retry),
        (refused(600003, "InvalidParameter"), Reject, Reauth),
        (refused(604015, "Mismatch", 400), Blocked, Reauth),
        (refused(601009, "Mismatch", 200), Blocked, Blocked),
        (refused(100013, "AccessDenied", 403), Blocked, Blocked),
        (refused(0, "LackPolicy", 403), Blocked, Blocked),
    ],
)
def test_an_error_means_something_else_before_and_after_the_upload(
    reply: Reply, applying: type[Verdict], committing: type[Verdict]
) -> None:
    with pytest.raises(applying):
        grant(Desk(signed_in(), reply))
    with pytest.raises(committing):
        confirm(Desk(signed_in(), reply))


def test_the_commit_names_the_object_and_signs_what_it_sends() -> None:
    desk = Desk(signed_in(), committed({"Uri": URI, "UriStatus": 2000}))
    receipt = confirm(desk)
    assert receipt is not None
    assert receipt.key == "00112233445566778899aabbccddeeff"
    request = desk.asked[1]
    assert isinstance(request.body, bytes)
    assert json.loads(request.body) == {"SessionKey": "session==", "SuccessOids": [URI]}
    assert "SignedHeaders=x-amz-content-sha256;x-amz-date;x-amz-security-token," in request.headers["authorization"]
    assert "s3cret" not in request.url + str(request.headers)


PICTURE = {"ImageWidth": 3, "ImageHeight": 4, "ImageFormat": "png", "ImageSize": 5}


@pytest.mark.parametrize("plugins", [[PICTURE], json.dumps([PICTURE])])
def test_a_picture_is_described(plugins: object) -> None:
    receipt = confirm(Desk(signed_in(), committed({"Uri": URI, "UriStatus": 2000}, plugins=plugins)))
    assert receipt is not None
    assert receipt.facts == {"width": "3", "height": "4", "format": "png"}


@pytest.mark.parametrize("plugins", [None, [], "", "[", "[" * 5000, [1], [{"ImageSize": None}], {"a": 1}])
def test_a_commit_that_describes_nothing_is_one_all_the_same(plugins: object) -> None:
    receipt = confirm(Desk(signed_in(), committed({"Uri": URI, "UriStatus": 2000}, plugins=plugins)))
    assert receipt is not None
    assert receipt.facts == {}


def test_a_commit_that_failed_needs_another_permission() -> None:
    with pytest.raises(Reauth, match="did not keep"):
        confirm(Desk(signed_in(), committed({"Uri": URI, "UriStatus": 2001})))
    with pytest.raises(Reauth, match="5 bytes of the file's 6"):
        confirm(Desk(signed_in(), committed({"Uri": URI, "UriStatus": 2000}, plugins=[PICTURE])), size=6)


@pytest.mark.parametrize("results", [(), ({"Uri": URI},), ({"Uri": URI, "UriStatus": 0},)])
def test_a_commit_that_does_not_tell_leaves_it_to_the_checksum(results: tuple[object, ...]) -> None:
    assert confirm(Desk(signed_in(), committed(*results))) is None


def test_a_commit_with_a_status_that_nobody_knows_is_asked_again() -> None:
    with pytest.raises(Retry, match="2002"):
        confirm(Desk(signed_in(), committed({"Uri": URI, "UriStatus": 2002})))


def test_a_session_that_ended_before_the_commit_blocks_and_costs_no_permission() -> None:
    with pytest.raises(Blocked):
        confirm(Desk({"ret": "1015"}))


@pytest.mark.parametrize(
    ("options", "count"),
    [
        ({}, 0),
        ({"api": "https://dreamina-api.us.capcut.com"}, 0),
        ({"api": "https://jimeng.jianying.com/"}, 0),
        ({"api": "https://api-proxy-1.deno.dev/dreamina/us"}, 1),
        ({"api": "https://evil-jianying.com"}, 1),
        ({"api": "https://jianying.com.evil.example"}, 1),
    ],
)
def test_an_address_that_is_not_the_vendors_is_warned_of(options: dict[str, str], count: int) -> None:
    assert len(broker(**options).warnings) == count


@pytest.mark.parametrize("token", ["us-", "sessionid=abc", "a b", "a;b", "a\nb", "sessionid=a; b", "é"])
def test_what_is_no_session_is_refused_at_the_start(token: str) -> None:
    with pytest.raises(Failure, match='copy the cookie "sessionid" alone'):
        broker(token)
