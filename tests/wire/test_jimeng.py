"""The cookie by known answers: both were made by the rules of the page's own script, and are pinned by SHA-256 too."""

import gzip
import zlib
from hashlib import sha256

import brotli
import pytest
import zstandard

from dumbwaiter.errors import Retry
from dumbwaiter.wire.jimeng import UNPACKED_MAX, cookie, session, unpacked
from dumbwaiter.wire.message import Reply

TOKEN = "0123456789abcdef0123456789abcdef"
WEB, USER = "7500000000000000001", "00112233445566778899aabbccddeeff"
CHINA = (
    "_tea_web_id=7500000000000000001; is_staff_user=false; store-region=cn-gd; store-region-src=uid; "
    f"sid_guard={TOKEN}%7C1700000000%7C5184000%7CMon%2C+03-Feb-2025+08%3A17%3A09+GMT; uid_tt={USER}; uid_tt_ss={USER}; "
    f"sid_tt={TOKEN}; sessionid={TOKEN}; sessionid_ss={TOKEN}; sid_tt={TOKEN}"
)


def test_a_chinese_token_stands_whole_in_its_cookie() -> None:
    made = cookie(TOKEN, 1700000000.9, WEB, USER)
    assert made == CHINA
    assert len(made) == 457
    assert sha256(made.encode()).hexdigest() == "88b982fd0fef5ad5b7d5711257a605c8fce1dcf944ea378b8e779cbf1ef2fde7"


@pytest.mark.parametrize("prefix", ["us-", "US-", "uS-"])
def test_an_international_token_loses_its_prefix(prefix: str) -> None:
    made = cookie(prefix + TOKEN, 1700000000, WEB, USER)
    assert made == CHINA.replace("=cn-gd;", "=us;")
    assert sha256(made.encode()).hexdigest() == "ba790f7d6472cf6a33498676bb1036d54beedffd7671cf399a62b694da55b6eb"


def test_only_the_beginning_of_a_token_names_the_service() -> None:
    assert session("sous-marin") == "sous-marin"
    assert session("us-us-a") == "us-a"


def packed(kind: str, body: bytes) -> Reply:
    return Reply(200, {"content-encoding": kind}, body)


@pytest.mark.parametrize(
    "reply",
    [
        Reply(200, {}, b"{}"),
        packed("identity", b"{}"),
        packed("gzip", gzip.compress(b"{}")),
        packed("GZIP", gzip.compress(b"{}")),
        packed("deflate", zlib.compress(b"{}")),
        packed("deflate", zlib.compress(b"{}", wbits=-15)),
        packed("br", brotli.compress(b"{}")),
        packed("zstd", zstandard.compress(b"{}")),
        packed("zstd", zstandard.ZstdCompressor(write_content_size=False).compress(b"{}")),
    ],
)
def test_a_packed_answer_is_unpacked(reply: Reply) -> None:
    assert unpacked(reply).body == b"{}"


@pytest.mark.parametrize(
    "reply",
    [
        packed("compress", b"{}"),
        packed("br", b"{}"),
        packed("br", brotli.compress(b"{}")[:-1]),
        packed("br", brotli.compress(bytes(8 * UNPACKED_MAX))),
        packed("zstd", b"{}"),
        packed("zstd", zstandard.compress(b"{}")[:-1]),
        packed("zstd", zstandard.compress(bytes(UNPACKED_MAX + 1))),
        packed("zstd", zstandard.ZstdCompressor(write_content_size=False).compress(bytes(UNPACKED_MAX + 1))),
        packed("gzip", b"{}"),
        packed("gzip", gzip.compress(b"{}")[:-4]),
        packed("gzip", gzip.compress(bytes(UNPACKED_MAX + 1))),
    ],
)
def test_an_answer_that_cannot_be_unpacked_is_trouble(reply: Reply) -> None:
    with pytest.raises(Retry):
        unpacked(reply)
