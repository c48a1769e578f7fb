"""AWS Signature Version 4 by known answers.

The first set is AWS's public test suite ("aws-sig-v4-test-suite", keys and time of that suite). The second was made
for ImageX's own calls with botocore's signer and an independent implementation, which agree.
"""

from collections.abc import Mapping, Sequence
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dumbwaiter.model import Secret
from dumbwaiter.wire.sigv4 import Keys, authorization, canonical_query, canonical_request, digest, signing_key, stamp

SUITE = Keys("AKIDEXAMPLE", Secret("wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"))
SUITE_HEADERS = {"Host": "example.amazonaws.com", "X-Amz-Date": "20150830T123600Z"}
SUITE_TOKEN = (
    "AQoDYXdzEPT//////////wEXAMPLEtc764bNrC9SAPBSM22wDOk4x4HIZ8j4FZTwdQWLWsKWHGBuFqwAeMicRXmxfpSPfIeoIYRqTflfKD8YUuwthAx"
    "7mSEI/qkPpKPi/kMcGdQrmGdeehM4IC1NtBmUpp2wUE8phUZampKsburEDy0KPkyQDYwT7WZ0wq5VSXDvp75YU9HFvlRd8Tx6q6fE8YQcHNVXAkiY9q6"
    "d+xo0rKwT38xVqr7ZD0u0iPPkUL64lIZbqBAz+scqKmlzm8FDrypNC9Yjc8fPOLn9FX9KSYvKTr4rvx3iSIlTJabIQwj2ICCR/oLxBA=="
)
UNRESERVED = "-._~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
FORM = {"Content-Type": "application/x-www-form-urlencoded"}


@pytest.mark.parametrize(
    ("method", "query", "headers", "body", "signature"),
    [
        ("GET", [], {}, b"", "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"),
        ("POST", [], {}, b"", "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b"),
        (
            "GET",
            [("Param2", "value2"), ("Param1", "value1")],
            {},
            b"",
            "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500",
        ),
        (
            "GET",
            [("Param1", "value2"), ("Param1", "Value1")],
            {},
            b"",
            "eedbc4e291e521cf13422ffca22be7d2eb8146eecf653089df300a15b2382bd1",
        ),
        (
            "GET",
            [("Param1", "value2"), ("Param1", "value1")],
            {},
            b"",
            "5772eed61e12b33fae39ee5e7012498b51d56abc0abb7c60486157bd471c4694",
        ),
        (
            "GET",
            [(UNRESERVED, UNRESERVED)],
            {},
            b"",
            "9c3e54bfcdf0b19771a7f523ee5669cdf59bc7cc0884027167c21bb143a40197",
        ),
        ("GET", [("ሴ", "bar")], {}, b"", "2cdec8eed098649ff3a119c94853b13c643bcf08f8b0a1d91e12c9027818dd04"),
        (
            "GET",
            [],
            {"My-Header1": " value1", "My-Header2": ' "a   b   c"'},
            b"",
            "acc3ed3afb60bb290fc8d2dd0098b9911fcaa05412b367055dee359757a9c736",
        ),
        (
            "POST",
            [],
            FORM,
            b"Param1=value1",
            "ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a",
        ),
        (
            "POST",
            [],
            {"X-Amz-Security-Token": SUITE_TOKEN},
            b"",
            "85d96828115b5dc0cfc3bd16ad9e210dd772bbebba041836c64533a82be05ead",
        ),
    ],
    ids=[
        "get-vanilla",
        "post-vanilla",
        "get-vanilla-query-order-key-case",
        "get-vanilla-query-order-value-case",
        "get-vanilla-query-order-value",
        "get-vanilla-query-unreserved",
        "get-vanilla-utf8-query",
        "get-header-value-trim",
        "post-x-www-form-urlencoded",
        "post-sts-header-before",
    ],
)
def test_the_signatures_are_those_of_the_public_suite(
    method: str, query: Sequence[tuple[str, str]], headers: Mapping[str, str], body: bytes, signature: str
) -> None:
    made = authorization(
        SUITE, "us-east-1", "service", "20150830T123600Z", method, "/", query, {**SUITE_HEADERS, **headers}, body
    )
    names = ";".join(sorted(name.lower() for name in {**SUITE_HEADERS, **headers}))
    assert made == (
        "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, "
        f"SignedHeaders={names}, Signature={signature}"
    )


TOKEN = "STS2FakeSessionToken0001=="
KEYS = Keys("AKTPFAKE0000000000000001", Secret("fakeSecret/Key+For=Tests0001"), Secret(TOKEN))
WHEN = "20260102T030405Z"
SIGNED = {"x-amz-date": WHEN, "x-amz-security-token": TOKEN}
APPLY = [("Action", "ApplyImageUpload"), ("Version", "2018-08-01"), ("ServiceId", "tb4s082cfz")]
COMMIT = [("Action", "CommitImageUpload"), ("Version", "2018-08-01"), ("ServiceId", "tb4s082cfz")]
BODY = b'{"SessionKey":"fakeSessionKey=="}'
OIDS = b'{"SessionKey":"fakeSessionKey==","SuccessOids":["tos-cn-i-tb4s082cfz/00112233445566778899aabbccddeeff"]}'
CHINA = "imagex.bytedanceapi.com"
US = "imagex16-normal-us-ttp.capcutapi.us"
CASES = {
    "apply": (
        "GET",
        [*APPLY, ("FileSize", "1048576"), ("s", "abc123def45")],
        SIGNED,
        b"",
        "cn-north-1",
        "d37b277b1de62df8c6a1fcdfb80d95179a81685518f4322bc965384e7606efca",
        "20591574697e10e33c1323a19ae2094c4a04b808ce2245e358ae8582f076f015",
    ),
    "apply with host": (
        "GET",
        [*APPLY, ("FileSize", "1048576"), ("s", "abc123def45")],
        {"host": CHINA, **SIGNED},
        b"",
        "cn-north-1",
        "6a6c3109f7d3a5b8277098d697817626e8323816401828cda73c4ab7b970d875",
        "c81d420892ce89a96605a7e5ae5398ab8964fe5d4a0feec8ab47ddb98cc46da4",
    ),
    "commit": (
        "POST",
        COMMIT,
        {"x-amz-content-sha256": digest(BODY), **SIGNED},
        BODY,
        "cn-north-1",
        "d7802cb871cabfb166a0cb09b2c48a2003596142478010b8363b34d8f740ec18",
        "032f24c63e0bcf86b2e4e4b8e4af798d2d0e26664f522a429ea1d519c1c37fa4",
    ),
    "apply, international": (
        "GET",
        [
            ("Action", "ApplyImageUpload"),
            ("Version", "2018-08-01"),
            ("ServiceId", "wopfjsm1ax"),
            ("FileSize", "7"),
            ("s", "0123456789"),
            ("device_platform", "web"),
        ],
        {"host": US, **SIGNED},
        b"",
        "us-east-1",
        "0fc03d86565400f37c754cb6fbcdbd5d1be8a02f2a2a8056395549f4bc711afa",
        "eb22848f63a2f363e142f81edafc09a90934e097bf22dddcd55aa97e4ddd2f03",
    ),
    "letters that are encoded, and a name twice": (
        "GET",
        [
            *APPLY,
            ("FileSize", "7"),
            ("FileExtension", ".png"),
            ("StoreKeys", "b/c d.txt"),
            ("StoreKeys", "a~1+中.txt"),
            ("UploadNum", "2"),
            ("s", "zz"),
        ],
        SIGNED,
        b"",
        "cn-north-1",
        "1d342864e9ec65511cfa1d00d375129ea2ec148d4b002fdb62264e874a24bea3",
        "a681e34d1facc9220db7ddac812767e61f6de9c9ef59c06e83d3b1ef69620c3a",
    ),
    "commit with names and type": (
        "POST",
        COMMIT,
        {"content-type": "application/json", "x-amz-content-sha256": digest(OIDS), **SIGNED},
        OIDS,
        "cn-north-1",
        "5640f7a4582af7ca0a472e543310c879e2a730981e5320da9827adec2859b9bc",
        "d770d26807d0ca506a7a391523b888fbb3d9da86aad180e0303f5c510d60e32c",
    ),
    "commit in the query": (
        "POST",
        [*COMMIT, ("SessionKey", "fakeSessionKey==")],
        SIGNED,
        b"",
        "cn-north-1",
        "4941cf75658274b7eaac8b9999009ea5396bf127fc35f40e40ea38f9d1640f16",
        "f40a81024149da0fefa4adc227553d175cf1b317772afaec3a5a8cbee17f93a4",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_imagex_calls_are_signed_as_its_own_clients_sign_them(case: str) -> None:
    method, query, headers, body, region, canonical, signature = CASES[case]
    text = canonical_request(method, "/", query, headers, body)
    if case in {"apply", "commit"}:  # of these the text to sign is known, which holds the digest
        assert sha256(text.encode()).hexdigest() == canonical
    made = authorization(KEYS, region, "imagex", WHEN, method, "/", query, headers, body)
    assert made.endswith(f"Signature={signature}")


def test_the_chain_of_keys_is_known() -> None:
    key = signing_key(KEYS.secret, "20260102", "cn-north-1", "imagex")
    assert key.hex() == "6ca82b6165b34ba42d09a91c0d25d8f418afea86e213ee91da8509cf4c25d646"


def test_keys_never_show_their_secrets() -> None:
    assert "fakeSecret" not in repr(KEYS)
    assert TOKEN not in repr(KEYS)


def test_a_published_signature_of_another_client_is_reproduced() -> None:
    keys = Keys("ak", Secret("sk"), Secret("token"))
    query = [*APPLY, ("UploadNum", "1"), ("FileExtension", ".png"), ("s", "abc123")]
    headers = {"x-amz-date": "20260609T202320Z", "x-amz-security-token": "token"}
    made = authorization(keys, "cn-north-1", "imagex", "20260609T202320Z", "GET", "/", query, headers)
    assert made.endswith("f4bf1806f1b54d3b51cdd04482dcb18b9b63b39358f3ab789ce1c6a6a26114f8")


def test_a_time_is_written_without_colons() -> None:
    assert stamp(1767323045.9) == WHEN


@given(st.lists(st.tuples(st.text(), st.text())))
def test_the_order_of_a_query_says_nothing(query: list[tuple[str, str]]) -> None:
    query = [
        (name.encode("utf-8", "replace").decode(), value.encode("utf-8", "replace").decode()) for name, value in query
    ]
    assert canonical_query(query) == canonical_query(query[::-1])
