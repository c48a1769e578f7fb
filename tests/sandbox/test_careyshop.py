"""CareyShop's list in the sandbox by its documentation, with a client of its own."""

import hashlib
import time
from collections.abc import Callable
from typing import Any

import pytest

from dumbwaiter_sandbox.careyshop import ACCOUNT

Call = Callable[..., Any]


@pytest.fixture
def call(running: Any) -> Call:
    def send(controller: str, method: str, token: str = "", **members: Any) -> Any:
        public = {"appkey": ACCOUNT["app_key"], "timestamp": str(int(time.time())), "format": "json", "method": method}
        values = {**{name: str(value) for name, value in members.items()}, **public}
        if token:
            values["token"] = token
        text = "".join(f"{name}{values[name]}" for name in sorted(values))
        values["sign"] = hashlib.md5(f"{ACCOUNT['app_secret']}{text}{ACCOUNT['app_secret']}".encode()).hexdigest()
        url = f"{running.urls['careyshop']}/api/v1/{controller}/method/{values.pop('method')}.html"
        return running.http.post(url, data=values).json()

    account = {name: ACCOUNT[name] for name in ("username", "password")}
    token = send("admin", "login.admin.user", platform="test", **account)["data"]["token"]["token"]
    return lambda method, **members: send("storage", method, token, **members)


def _plant(running: Any, **what: Any) -> Any:
    return running.control("POST", "/plant", json={"vendor": "careyshop", **what})


def test_the_list_shows_one_directory_by_pages(running: Any, call: Call) -> None:
    assert _plant(running, path="a/b/deep.jpg", content="deep").status_code == 200
    assert _plant(running, path="many.txt", content="x", times=5).json()["planted"] == 5
    order = {"order_field": "storage_id", "order_type": "asc", "page_size": 4}
    first = call("get.storage.list", storage_id=0, page_no=1, **order)["data"]
    second = call("get.storage.list", storage_id=0, page_no=2, **order)["data"]
    assert (first["total_result"], second["total_result"]) == (6, 6)
    assert [one["name"] for one in first["items"]] == ["a", "many.txt", "many-1.txt", "many-2.txt"]
    assert [one["name"] for one in second["items"]] == ["many-3.txt", "many-4.txt"]
    assert [one["type"] for one in first["items"]] == [2, 1, 1, 1]
    (inner,) = call("get.storage.list", storage_id=first["items"][0]["storage_id"])["data"]["items"]
    assert (inner["name"], inner["parent_id"], inner["path"]) == ("b", first["items"][0]["storage_id"], "")
    (deep,) = call("get.storage.list", storage_id=inner["storage_id"])["data"]["items"]
    assert (deep["type"], deep["size"], deep["hash"]) == (0, 4, hashlib.sha1(b"deep").hexdigest())
    assert running.http.get(f"http://{deep['url']}").text == "deep"
    assert [one["name"] for one in call("get.storage.list", name="deep")["data"]["items"]] == ["deep.jpg"]
    assert call("get.storage.item", storage_id=deep["storage_id"])["data"]["url"] == deep["url"]
    assert call("get.storage.item", storage_id=4711)["data"] is None


def test_deleting_a_directory_removes_what_lies_in_it_and_the_bytes(running: Any, call: Call) -> None:
    _plant(running, path="a/b/deep.jpg", content="deep")
    (folder,) = call("get.storage.list", storage_id=0)["data"]["items"]
    (deep,) = call("get.storage.list", name="deep")["data"]["items"]
    assert call("del.storage.list", storage_id=folder["storage_id"])["data"] is True
    assert call("get.storage.list", name="deep")["data"]["total_result"] == 0
    assert running.http.get(f"http://{deep['url']}").status_code == 404


def test_the_list_can_shrink_between_two_pages(running: Any, call: Call) -> None:
    _plant(running, path="many.txt", content="x", times=3)
    running.faults("careyshop.list:shrinks@1")
    assert [call("get.storage.list", storage_id=0)["data"]["total_result"] for _ in range(2)] == [3, 2]


@pytest.mark.parametrize("what", [{"vendor": "nos"}, {"path": 5, "content": ""}, {"path": "a"}, {"remove": 5}])
def test_what_cannot_be_planted_is_said(running: Any, what: dict[str, Any]) -> None:
    reply = running.control("POST", "/plant", json={"vendor": "careyshop", **what})
    assert reply.status_code == 400
    assert reply.json()["error"].startswith(("plant ", "say "))
