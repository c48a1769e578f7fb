"""CareyShop's formats. The first signature is the worked example of its manual, "signature"."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dumbwaiter.errors import Retry
from dumbwaiter.wire import careyshop
from dumbwaiter.wire.message import Reply

SECRET = "0123456789abcdef0123456789abcdef"
COMMON = {
    "appkey": "12345678",
    "token": "3147ed7851354e0056c67a1ea1f249e1",
    "timestamp": "1527516000",
    "format": "json",
}


def test_the_manuals_example_is_signed():
    values = {"app_name": "ios", "appkey": "12345678", "format": "json", "method": "get.app.list"}
    values |= {"timestamp": "1523553249", "token": "test"}
    assert careyshop.sign("careyshop", values) == "694d5cee85def32fac63bd6c1896c41c"
    assert careyshop.sign("careyshop", {**values, "status": "1"}) == "09b5a5c88f4b0df98b3601c5241a906c"


@pytest.mark.parametrize(
    ("own", "sign"),
    [
        ({"method": "get.upload.token"}, "53fdf4b8f2dc9d83737004be2a18aaaa"),
        ({"method": "get.upload.token", "module": "aliyun", "type": "app"}, "c1ebfe9b05ea4700be9c4f807eab0691"),
        (
            {"method": "add.upload.list", "x:replace": "", "x:parent_id": "0", "x:filename": "a.txt"},
            "0e6db4943fa4c8e998115661a2b09700",
        ),
        (
            {"method": "get.storage.list", "storage_id": "0", "page_no": "1", "page_size": "50"},
            "c30b8afe9a51a09a706b4153503a65e6",
        ),
        ({"method": "get.storage.list", "name": "测试"}, "c99b1becf5a1c827dd655eacac798a28"),
    ],
)
def test_every_text_is_signed(own, sign):
    assert careyshop.sign(SECRET, {**COMMON, **own}) == sign


@pytest.mark.parametrize(("text", "size"), [("2M", 2097152), ("0M", None), ("512K", 524288), ("", None), ("x", None)])
def test_a_limit_is_in_binary_units(text, size):
    assert careyshop.size(text) == size


@given(st.text())
def test_no_limit_breaks_the_reader(text):
    assert (found := careyshop.size(text)) is None or found > 0


def test_an_item_may_be_refused_in_an_answer_that_is_not():
    text = '{"status":200,"message":"success","data":[{"status":500,"message":"上传文件后缀不允许"}]}'
    assert careyshop.item(text) == careyshop.Item(500, "上传文件后缀不允许")
    assert careyshop.item('{"status":500,"message":"m"}') == careyshop.Item(500, "m")


def test_an_item_may_hold_nulls_like_a_row_of_the_list():
    nulls = ",".join(f'"{name}":null' for name in careyshop.Item.__struct_encode_fields__ if name != "storage_id")
    text = f'\ufeff{{"status":200,"message":null,"data":[{{"storage_id":7,{nulls}}}]}}'
    assert careyshop.item(text).storage_id == 7


@pytest.mark.parametrize("body", [b"", b"<html>", b"null", b"[]", b'{"status":"x"}', b'{"code":1}', b'{"status":200'])
def test_what_is_no_envelope_is_tried_again(body):
    with pytest.raises(Retry):
        careyshop.envelope(Reply(200, body=body))
