"""What a shop's answers become: grants, keys, limits, ends."""

import asyncio
import base64
from typing import Any
from urllib.parse import parse_qs

import msgspec
import pytest

from dumbwaiter.brokers.careyshop import CareyShop
from dumbwaiter.config import options as settings
from dumbwaiter.config.values import SecretSource
from dumbwaiter.errors import Blocked, Retry
from dumbwaiter.model import Ask, Entry, Grant, Limits, Link, Listed, Page, Receipt, Stamp
from dumbwaiter.tickets import CareyShopTicket, OssPostTicket, OssStsTicket
from dumbwaiter.wire.message import Reply, Request

NOW = 1527440873.0
POLICY = base64.b64encode(
    b'{"expiration":"2018-05-28T02:07:53Z","conditions":[["content-length-range",0,2097152],'
    b'["starts-with","$key","uploads\\/files\\/20180528\\/"]]}'
).decode()
SIGNED_IN = {"admin": {}, "token": {"token": "t" * 32, "refresh": "r", "token_expires": NOW + 86400}}


def _fields(*names: str) -> list[dict[str, Any]]:
    defaults = {"x:parent_id": 0, "success_action_status": 200}
    fields = [{"name": name, "type": "hidden", "default": defaults.get(name, "")} for name in names]
    return [*fields, {"name": "file", "type": "file", "default": ""}]


def _oss(expires: float, folder: str = "uploads/files/20180528/") -> dict[str, Any]:
    names = ("x:replace", "x:parent_id", "x:filename", "OSSAccessKeyId", "policy", "Signature", "callback", "key")
    address = {
        "upload_url": "http://careyshop.oss-cn-hangzhou.aliyuncs.com/",
        "module": "aliyun",
        "param": _fields(*names, "success_action_status"),
    }
    given = {"OSSAccessKeyId": "AK", "policy": POLICY, "Signature": "S", "callback": "CB", "dir": folder}
    return {"token": {"upload_url": address, **given}, "expires": expires}


LOCAL = {
    "token": {
        "upload_url": {
            "upload_url": "https://shop.example.com/api/v1/upload/method/add.upload.list.html",
            "module": "careyshop",
            "param": _fields("x:replace", "x:parent_id", "x:filename", "token"),
        },
        "token": "careyshop",
    },
    "expires": 0,
}
STS = {
    "credentials": {
        "access_key_id": "STS.1",
        "access_key_secret": "hidden-word",
        "security_token": "token",
        "expiration": "2018-05-28T14:49:21Z",
    },
    "bucket": "careyshop",
    "callback": "{}",
    "expires": 1527518962,
}
ADDRESS = {"upload_url": "http://careyshop.oss-cn-hangzhou.aliyuncs.com/", "module": "aliyun", "param": []}


class Desk:
    """Answers by operation; a list is given one by one."""

    def __init__(self, **answers: Any) -> None:
        self.answers = {"login_admin_user": SIGNED_IN, **answers}
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.methods: list[str] = []
        self._kept: dict[str, Any] = {}

    async def call(self, request: Request) -> Reply:
        assert isinstance(request.body, bytes)
        self.methods.append(request.method)
        text = request.body.decode() or request.url.partition("?")[2]
        self.asked.append((request.what, {name: values[0] for name, values in parse_qs(text).items()}))
        answer = self.answers[request.what.replace(".", "_")]
        if isinstance(answer, list):
            answer = answer.pop(0) if len(answer) > 1 else answer[0]
        if isinstance(answer, Reply):
            return answer
        if isinstance(answer, str):
            return Reply(200, body=msgspec.json.encode({"status": 500, "message": answer}))
        return Reply(200, body=msgspec.json.encode({"status": 200, "message": "success", "data": answer}))

    def now(self, url: str) -> float:
        return NOW

    def skew(self, url: str) -> float:
        return 0.0

    def nonce(self) -> str:
        return "n"

    def forget(self, name: str, value: object) -> None:
        if self._kept.get(name) == value:
            del self._kept[name]

    async def cached(self, name: str, life: float, fetch: Any) -> Any:
        if name not in self._kept:
            self._kept[name] = await fetch()
        return self._kept[name]


def _broker(**options: Any) -> CareyShop:
    given = {
        "api": "https://shop.example.com/api/v1",
        "app_key": "12345678",
        "app_secret": SecretSource("literal", "0123456789abcdef0123456789abcdef"),
        "username": "somebody",
        "password": SecretSource("literal", "password"),
    }
    return CareyShop(settings.CareyShop(**{**given, **options}))


def _ask(name: str = "a b.JPG", seed: str = "5eed", held: str | None = None) -> Ask:
    return Ask("w", name, name, 10, "image/jpeg", seed, held)


def _grant(broker: CareyShop, desk: Desk, ask: Ask | None = None) -> Grant:
    (grant,) = asyncio.run(broker.grants([ask or _ask()], desk))
    return grant


def test_the_form_is_filled_in_the_shops_order_and_named_by_us() -> None:
    broker, desk = _broker(parent=7), Desk(get_upload_token=_oss(1527444473))
    whole = _grant(broker, desk)
    assert whole.many
    assert whole.expires_at == 1527444473  # and not the policy's own end, eight hours later
    assert whole.limits == Limits(0, 2097152)
    grant = broker.fit(whole, _ask())
    ticket = grant.ticket
    assert isinstance(ticket, OssPostTicket)
    assert grant.key is not None
    assert ticket.fields == (
        ("x:replace", ""),
        ("x:parent_id", "7"),
        ("x:filename", "a b.JPG"),
        ("OSSAccessKeyId", "AK"),
        ("policy", POLICY),
        ("Signature", "S"),
        ("callback", "CB"),
        ("key", grant.key),
        ("success_action_status", "200"),
    )
    assert grant.key.startswith("uploads/files/20180528/")
    assert grant.key.endswith(".JPG")


def test_a_job_keeps_its_key_and_no_other_has_it() -> None:
    broker, desk = _broker(), Desk(get_upload_token=_oss(0))
    whole = _grant(broker, desk)
    keys = [broker.fit(whole, _ask(seed=seed)).key for seed in ("1", "1", "2")]
    assert keys[0] == keys[1] != keys[2]


def test_the_policys_end_counts_when_it_is_the_earlier_or_the_only_one() -> None:
    assert _grant(_broker(), Desk(get_upload_token=_oss(0))).expires_at == 1527473273
    assert _grant(_broker(), Desk(get_upload_token=_oss(1527473274))).expires_at == 1527473273


def test_a_policy_for_another_folder_than_the_shop_names_is_not_used() -> None:
    broker = _broker()
    whole = _grant(broker, Desk(get_upload_token=_oss(0, "uploads/files/20180529/")))
    with pytest.raises(Retry, match="another folder"):
        broker.fit(whole, _ask())


def test_temporary_credentials_keep_the_key_of_an_earlier_day() -> None:
    broker = _broker(module="aliyun", terminal="app")
    whole = _grant(broker, Desk(get_upload_token=STS, get_upload_url=ADDRESS))
    assert whole.expires_at == 1527518961
    ticket = whole.ticket
    assert isinstance(ticket, OssStsTicket)
    assert (ticket.endpoint, ticket.region) == ("http://oss-cn-hangzhou.aliyuncs.com", "cn-hangzhou")
    held = "uploads/files/20180527/x.jpg"
    assert broker.fit(whole, _ask(held=held)).key == held
    assert str(broker.fit(whole, _ask()).key).startswith("uploads/files/20180528/")  # the vendor's date
    assert "hidden-word" not in repr(whole)
    with pytest.raises(TypeError):
        msgspec.json.encode(whole)


def test_the_shops_own_form_is_signed_for_each_file_and_asked_for_once() -> None:
    broker, desk = _broker(), Desk(get_upload_token=LOCAL)

    async def two() -> list[Grant]:
        return [(await broker.grants([_ask(name)], desk))[0] for name in ("a.jpg", "b.jpg")]

    grants = asyncio.run(two())
    assert [what for what, _ in desk.asked] == ["login.admin.user", "get.upload.token"]
    fields = dict(grants[1].ticket.fields)
    assert isinstance(grants[1].ticket, CareyShopTicket)
    assert not grants[1].many
    assert fields["token"] == "t" * 32  # and not the word "careyshop"
    assert fields["x:filename"] == "b.jpg"
    assert len(fields["sign"]) == 32


@pytest.mark.parametrize(
    ("etag", "told", "verified"),
    [
        ("FvfDvB2AjgRzKt9nmWXMw0ynrjRB", "FvfDvB2AjgRzKt9nmWXMw0ynrjRB", "md5"),
        ("FvfDvB2AjgRzKt9nmWXMw0ynrjRB", "Fto5o-5ea0sNMlW_75VgGJCv2AcJ", ""),
        ("FvfDvB2AjgRzKt9nmWXMw0ynrjRB", "25f9e794323b453885f5181f1b624d0b", "md5"),  # another kind says nothing
        ("25F9E794323B453885F5181F1B624D0B", "Fto5o-5ea0sNMlW_75VgGJCv2AcJ", "md5"),
    ],
)
def test_a_shop_that_has_another_hash_than_qiniu_s_of_the_file_leaves_it_unverified(
    etag: str, told: str, verified: str
) -> None:
    """A local file may be deleted for a hash that was compared, and for nothing less."""
    row = {"status": 200, "size": 9, "hash": told, "path": "uploads/a", "protocol": "qiniu"}
    answer = msgspec.json.encode({"status": 200, "message": "success", "data": [row]}).decode()
    receipt = Receipt("uploads/a", etag, verified="md5", facts={"answer": answer})
    ask = Ask("w", "a", "a", 9, "text/plain", "w/a", "5" * 24)
    found = asyncio.run(_broker().follow_up(ask, receipt, 0, Desk())).receipt
    assert found.verified == verified
    assert found.facts.get("hash_at_provider", "") == ("" if verified else told)


def test_a_newer_shop_says_suffixes_and_size() -> None:
    settings = {"image_ext": "jpg,png", "file_ext": "", "file_size": "1M"}
    whole = _grant(_broker(), Desk(get_upload_token={**LOCAL, **settings}))
    assert whole.limits == Limits(None, 1048576, suffixes=("jpg", "png"))


@pytest.mark.parametrize("message", ["token已过期", "权限不足", "token错误"])
def test_a_session_that_ended_is_made_anew_once(message: str) -> None:
    desk = Desk(get_upload_token=[message, LOCAL])
    _grant(_broker(), desk)
    assert [what for what, _ in desk.asked].count("login.admin.user") == 2
    with pytest.raises((Blocked, Retry)):
        _grant(_broker(), Desk(get_upload_token=message))


def test_a_new_session_that_is_refused_in_whatever_words_is_a_persons_business() -> None:
    """Else each file would sign in anew, again and again."""
    desk = Desk(get_upload_token=Reply(200, body=b'{"status":401,"message":"not signed in"}'))
    with pytest.raises(Blocked, match=r"do get\.upload\.token: 401 not signed in"):
        _grant(_broker(), desk)
    assert [what for what, _ in desk.asked].count("login.admin.user") == 2


def test_a_form_after_a_refused_one_is_not_signed_with_a_session_that_ended() -> None:
    """But with the same one where that was not the reason: another sign-in would end the other forms on their way."""
    second = {"token": {**SIGNED_IN["token"], "token": "u" * 32}}
    for answers, token in (([LOCAL, "权限不足", LOCAL], "u"), ([LOCAL, LOCAL], "t")):
        broker, desk = _broker(), Desk(get_upload_token=answers, login_admin_user=[SIGNED_IN, second])
        _grant(broker, desk)
        broker.refused()
        ticket = _grant(broker, desk).ticket
        assert isinstance(ticket, CareyShopTicket)
        assert dict(ticket.fields)["token"] == token * 32


@pytest.mark.parametrize("message", ["sign错误", "appkey已禁用或不存在"])
def test_a_wrong_account_is_a_persons_business(message: str) -> None:
    with pytest.raises(Blocked, match="app_"):
        _grant(_broker(), Desk(get_upload_token=message))
    with pytest.raises(Blocked, match="username"):
        _grant(_broker(), Desk(login_admin_user="账号或密码错误"))


def test_an_address_that_is_none_of_the_api_is_a_persons_business() -> None:
    with pytest.raises(Blocked, match="check api, which ends with its version"):
        _grant(_broker(), Desk(login_admin_user="method成员方法不存在"))


def test_a_module_that_the_shop_lacks_is_named_with_those_it_has() -> None:
    desk = Desk(get_upload_token="上传模块名 qiniu 不存在", get_upload_module=[[{"name": "OSS", "module": "aliyun"}]])
    with pytest.raises(Blocked, match="aliyun"):
        _grant(_broker(module="qiniu"), desk)


def test_nothing_is_sent_to_an_address_inside_that_a_shop_outside_names() -> None:
    answer = _oss(0)
    answer["token"]["upload_url"]["upload_url"] = "http://169.254.169.254/"
    with pytest.raises(Blocked, match="address"):
        _grant(_broker(), Desk(get_upload_token=answer))


@pytest.mark.parametrize(
    ("named", "used"),
    [
        ("http://shop.example.com/api/v1/upload", "https://shop.example.com/api/v1/upload"),
        ("https://shop.example.com/upload", "https://shop.example.com/upload"),
        ("http://shop.example.com:8080/upload", "http://shop.example.com:8080/upload"),
        ("http://careyshop.oss-cn-hangzhou.aliyuncs.com/", "http://careyshop.oss-cn-hangzhou.aliyuncs.com/"),
    ],
)
def test_what_a_shop_behind_tls_says_of_itself_is_not_sent_to_in_the_open(named: str, used: str) -> None:
    answer = {**LOCAL, "token": {**LOCAL["token"], "upload_url": {**LOCAL["token"]["upload_url"], "upload_url": named}}}
    assert _grant(_broker(), Desk(get_upload_token=answer)).ticket.url == used
    assert _grant(_broker(api="http://shop.example.com/api/v1"), Desk(get_upload_token=answer)).ticket.url == named


def test_the_shop_is_asked_by_get_if_so_configured() -> None:
    desk = Desk(get_upload_token=LOCAL)
    _grant(_broker(request="get"), desk)
    assert desk.asked[-1][1]["appkey"] == "12345678"
    assert desk.methods == ["POST", "GET"]  # the password goes into no server's log


@pytest.mark.parametrize(("letters", "method"), [(1, "GET"), (100, "POST")])
def test_an_address_grows_no_longer_than_a_server_takes(letters: int, method: str) -> None:
    name = "图" * letters + ".jpg"
    broker, desk = _broker(request="get"), Desk(get_upload_token=LOCAL, get_storage_list=None)
    asyncio.run(broker.confirm(_grant(broker, desk, _ask(name)), 10, desk))
    assert desk.asked[-1][1]["name"] == name
    assert desk.methods[-1] == method


def test_each_provider_signs_in_under_a_name_of_its_own() -> None:
    """Also where only the directory differs, and where another installation of this machine has the account."""
    names = {_platform(own) for own in ("one/shop", "one/banners", "other/shop")}
    assert len(names) == 3
    assert _platform("one/shop") in names
    assert all(len(name) <= 50 for name in names)


@pytest.mark.parametrize("options", [{}, {"platform": "chosen"}])
def test_who_works_beside_the_daemon_does_not_end_its_session(options: dict[str, Any]) -> None:
    assert _platform("one/shop", aside=True, **options) != _platform("one/shop", **options)


def _platform(own: str, *, aside: bool = False, **options: Any) -> str:
    broker, desk = _broker(**options), Desk(get_upload_token=LOCAL)
    broker.own, broker.aside = own, aside
    _grant(broker, desk)
    return desk.asked[0][1]["platform"]


# After a lost answer


def _confirmed(found: Any, name: str = "7.jpg", **answer: Any) -> tuple[Receipt | None, Desk]:
    """Looks for a file of seven bytes in a shop whose list is answered so."""
    broker, desk = _broker(), Desk(get_upload_token=answer or LOCAL, get_storage_list=found)
    grant = broker.fit(_grant(broker, desk, _ask(name)), _ask(name))
    return asyncio.run(broker.confirm(grant, 7, desk)), desk


@pytest.mark.parametrize("nothing", [None, {}, {"items": []}, {"items": [dict.fromkeys(("name", "size", "path"))]}])
def test_a_file_that_is_not_in_the_list_is_not_there(nothing: Any) -> None:
    assert _confirmed([nothing])[0] is None


def test_a_row_that_lacks_much_hides_no_other() -> None:
    empty = dict.fromkeys(("storage_id", "hash", "url", "protocol"))
    rows = [dict.fromkeys(_row(7)), _folder(8), _row(7, path=None), _row(7, size=None), _row(7, **empty)]
    found, _ = _confirmed([{"items": rows, "total_result": 5}])
    assert found == Receipt("uploads/files/20180528/7.jpg", facts={"bucket": "shop"})


def test_a_name_that_older_shops_leave_out_of_the_signature_goes_as_the_files_own() -> None:
    found, desk = _confirmed([{"items": [_row(7, name="7.jpg"), _row(9, size=7, name="@7.jpg")]}], "@7.jpg")
    assert found is not None
    assert found.facts["storage_id"] == "9"
    assert desk.asked[-1][1]["name"] == "7.jpg"
    ticket = _grant(_broker(), Desk(get_upload_token=LOCAL), _ask("@7.jpg")).ticket
    assert (ticket.name, dict(ticket.fields)["x:filename"]) == ("@7.jpg", "")


# Its list


def _row(number: int, **said: Any) -> dict[str, Any]:
    own = {"path": f"/uploads/files/20180528/{number}.jpg", "url": f"shop.example.com/{number}.jpg?type=careyshop"}
    told = {"size": number, "hash": "ab" * 20, "name": f"{number}.jpg", "protocol": "careyshop", "type": 0}
    times = {"create_time": "2018-05-28 22:36:39", "update_time": "2018-05-29 00:00:00"}
    return {"storage_id": number, "parent_id": 0, **told, **own, **times, **said}


def _folder(number: int, parent: int = 0) -> dict[str, Any]:
    empty = dict.fromkeys(("size", "hash", "path", "url", "protocol"))
    return {"storage_id": number, "parent_id": parent, "name": "banner", "type": 2, **empty}


def _listed(*answers: Any) -> tuple[list[Page], Desk]:
    """Walks through a list that answers so, page by page."""
    broker, desk = _broker(), Desk(get_storage_list=list(answers))
    pages = [asyncio.run(broker.listing(None, desk))]
    while (cursor := pages[-1].cursor) is not None:
        pages.append(asyncio.run(broker.listing(cursor, desk)))
    return pages, desk


def _asked(desk: Desk) -> list[tuple[int, int]]:
    """Returns directory and page of each call."""
    calls = [given for what, given in desk.asked if what == "get.storage.list"]
    assert {(given["order_field"], given["order_type"]) for given in calls} == {("storage_id", "asc")}
    return [(int(given["storage_id"]), int(given["page_no"])) for given in calls]


def test_a_row_of_the_list_is_what_the_shop_says_of_a_file() -> None:
    (page,), _ = _listed({"items": [_row(7)], "total_result": 1})
    assert page == Page(
        (
            Listed(
                key="uploads/files/20180528/7.jpg",
                size=7,
                stored_at=1527518199.0,  # its times are China's
                changed_at=1527523200.0,
                etag="ab" * 20,
                url="https://shop.example.com/7.jpg?type=careyshop",
                facts={"name": "7.jpg", "storage_id": "7", "protocol": "careyshop"},
            ),
        ),
        None,
    )


def test_directories_are_walked_one_after_the_other_page_by_page() -> None:
    root, more = {"items": [_row(1), _folder(2)], "total_result": 3}, {"items": [_folder(3)], "total_result": 3}
    inner = {"items": [_row(4, parent_id=2), _folder(5, 2)], "total_result": 2}
    pages, desk = _listed(root, more, inner, {"items": [_row(6, parent_id=3)], "total_result": 1}, None)
    assert _asked(desk) == [(0, 1), (0, 2), (2, 1), (3, 1), (5, 1)]
    assert [one.size for page in pages for one in page.items] == [1, 4, 6]
    assert all(page.whole for page in pages)


def _full(*rows: dict[str, Any]) -> dict[str, Any]:
    return {"items": list(rows), "total_result": len(rows)}


def test_a_list_whose_directories_lie_in_one_another_for_ever_is_ended() -> None:
    def inner(depth: int) -> dict[str, Any]:
        """A directory of the depth of its number: an empty one and the next one are in it."""
        return _full(_folder(1001 + depth, depth), _folder(depth + 1, depth))

    deep = [inner(0), *(answer for depth in range(1, 64) for answer in (None, inner(depth)))]
    pages, _ = _listed(*deep, None)
    assert len(pages) == 129
    with pytest.raises(Blocked, match="or some 64 deep in one another"):
        _listed(*deep, None, inner(64), None)
    circle = [_full(_folder(1)), *(_full(_folder(2 - turn % 2, 1 + turn % 2)) for turn in range(100))]
    with pytest.raises(Blocked, match="or some 64 deep in one another"):
        _listed(*circle, None)


def test_a_list_with_ever_more_directories_is_ended() -> None:
    answers = [_full(*(_folder(25_000 * turn + one) for one in range(1, 25_001))) for turn in range(5)]
    for answer in answers[:4]:
        answer["total_result"] = 10**9
    with pytest.raises(Blocked, match="the shop's list has more than 100000 directories"):
        _listed(*answers, *[None] * 5)


@pytest.mark.parametrize("nothing", [None, {}, [], {"total_result": 0}, {"total_result": 0, "items": []}])
def test_an_empty_shop_answers_in_several_ways(nothing: Any) -> None:
    assert _listed(nothing)[0] == [Page((), None)]


def test_a_directory_that_shrinks_while_it_is_read_is_read_anew_some_times() -> None:
    first, shrunk = {"items": [_row(1), _row(2)], "total_result": 4}, {"items": [_row(4)], "total_result": 3}
    small = {"items": [_row(2), _row(3), _row(4)], "total_result": 3}
    pages, desk = _listed(first, shrunk, small)
    assert _asked(desk) == [(0, 1), (0, 2), (0, 1)]
    assert all(page.whole for page in pages)
    pages, desk = _listed(*[first, shrunk] * 4)
    assert len(_asked(desk)) == 8
    assert [page.whole for page in pages] == [True] * 7 + [False]


def test_a_shop_that_shows_one_directory_for_all_is_not_walked_for_ever() -> None:
    _, desk = _listed({"items": [_folder(2), _row(3)], "total_result": 2})
    assert _asked(desk) == [(0, 1), (2, 1)]


@pytest.mark.parametrize(
    "said",
    [
        {"size": 2**70, "create_time": "9999-01-01 00:00:00"},
        {"size": -1, "create_time": "0000-00-00 00:00:00", "update_time": None},
        {"hash": "\0", "name": None, "mime": None, "pixel": []},
    ],
)
def test_odd_values_do_not_keep_the_rest_from_being_listed(said: dict[str, Any]) -> None:
    (page,), _ = _listed({"items": [_row(1, **said), _row(2)], "total_result": 2})
    odd, plain = page.items
    assert plain.size == 2
    assert 0 <= odd.size < 2**63
    assert 0 <= odd.stored_at * 1e9 < 2**63
    assert "\0" not in odd.etag


def test_an_address_inside_is_no_link_of_a_shop_outside() -> None:
    (page,), _ = _listed({"items": [_row(1, url="169.254.169.254/x"), _row(2, url="cdn/图 1.jpg")], "total_result": 2})
    assert page.items[0].url is None
    (page,), _ = _listed({"items": [_row(2, url="cdn.example/图 1.jpg?a=1")], "total_result": 1})
    assert page.items[0].url == "https://cdn.example/%E5%9B%BE%201.jpg?a=1"


def test_a_session_that_ended_while_the_list_is_read_is_made_anew() -> None:
    pages, desk = _listed("token已过期", {"items": [_row(1)], "total_result": 1})
    assert len(pages[0].items) == 1
    assert [what for what, _ in desk.asked].count("login.admin.user") == 2


@pytest.mark.parametrize(
    ("row", "link"),
    [
        (_row(7, url="new.example.com/7.jpg"), Link("https://new.example.com/7.jpg")),
        (_row(7, url="oss.example.com/7.jpg?Expires=1800000600&Signature=x"), 1_800_000_600.0),
        (dict.fromkeys(_row(7)), None),
        ({}, None),
        ([], None),
        (None, None),
    ],
)
def test_the_shop_is_asked_where_a_file_is_now(row: Any, link: Any) -> None:
    entry = Entry(1, "shop", "k", "w", "a.jpg", Stamp(0, 7, 0, 0), 0.0, facts={"storage_id": "7"})
    broker, desk = _broker(), Desk(get_storage_item=[row])
    found = asyncio.run(broker.link(entry, desk))
    if isinstance(link, float):
        assert found is not None
        assert found.expires_at == link - desk.skew("")
    else:
        assert found == link
    (asked,) = [given for what, given in desk.asked if what == "get.storage.item"]
    assert asked["storage_id"] == "7"
    assert asyncio.run(broker.link(msgspec.structs.replace(entry, facts={}), desk)) is None
