"""The sandbox of Jimeng, Dreamina and ImageX, spoken to with a client of the test's own."""

import hashlib
import hmac
import json
import struct
import time
import zlib
from dataclasses import dataclass
from urllib.parse import quote

import pytest

MIB = 1024 * 1024
KEYS = ("access_key_id", "secret_access_key", "session_token")
PAGE = {
    "Accept": "application/json, text/plain, */*",
    "Accept-Encoding": "gzip, deflate, br, zstd",
    "Accept-language": "zh-CN,zh;q=0.9",
    "Cache-control": "no-cache",
    "Pragma": "no-cache",
    "Priority": "u=1, i",
    "Sec-Ch-Ua": '"Google Chrome";v="131", "Chromium";v="131", "Not_A Brand";v="24"',
    "Sec-Ch-Ua-Mobile": "?0",
    "Sec-Ch-Ua-Platform": '"Windows"',
    "Sec-Fetch-Dest": "empty",
    "Sec-Fetch-Mode": "cors",
    "Sec-Fetch-Site": "same-origin",
    "User-Agent": "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) "
    "Chrome/131.0.0.0 Safari/537.36",
}
US = {"aid": "513641", "web_version": "7.5.0", "da_version": "3.3.2", "aigc_features": "app_lip_sync"}


@dataclass
class Applied:
    uri: str
    auth: str
    session: str

    @property
    def key(self) -> str:
        return self.uri.partition("/")[2]


class Client:
    """What a page does, over a running sandbox."""

    def __init__(self, running):
        self.running = running
        self.http = running.http
        self.account = running.sandbox.accounts["jimeng"]

    def options(self, **changes):
        reply = self.running.control("PUT", "/options", json={"jimeng": changes})
        assert reply.status_code == 200, reply.text

    def cookie(self, region="cn"):
        token = self.account[f"session_{region}"]
        user = "00112233445566778899aabbccddeeff"
        return (
            f"_tea_web_id=7500000000000000001; is_staff_user=false; store-region={'us' if region == 'us' else 'cn-gd'}; "
            f"store-region-src=uid; sid_guard={token}%7C{int(self.running.now())}%7C5184000%7C"
            f"Mon%2C+03-Feb-2025+08%3A17%3A09+GMT; uid_tt={user}; uid_tt_ss={user}; sid_tt={token}; "
            f"sessionid={token}; sessionid_ss={token}; sid_tt={token}"
        )

    def token(self, region="cn", body=None, params=None, **changes):
        base = self.running.urls["dreamina" if region == "us" else "jimeng"]
        headers = PAGE | {"Content-Type": "application/json", "Origin": base, "Referer": f"{base}/"}
        headers |= {"Appid": "513641" if region == "us" else "513695", "Cookie": self.cookie(region)}
        headers |= {name.replace("_", "-"): value for name, value in changes.items()}
        params = (US if region == "us" else {}) if params is None else params
        content = json.dumps({"scene": 2} if body is None else body).encode()
        return self.http.post(f"{base}/mweb/v1/get_upload_token", content=content, params=params, headers=headers)

    def keys(self, region="cn"):
        return self.token(region).json()["data"]

    def call(self, keys, query, body=b"", gateway="imagex", region="cn-north-1", host=False, when=None, **changes):
        """Signs and sends; an own implementation, after AWS's manual."""
        when = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(when or self.running.now()))
        headers = {"x-amz-date": when, "x-amz-security-token": keys["session_token"]}
        if host:
            headers["host"] = self.running.urls[gateway].partition("://")[2]
        if body:
            headers["x-amz-content-sha256"] = hashlib.sha256(body).hexdigest()
        method = "POST" if body else "GET"
        pairs = sorted((quote(k, safe="-_.~"), quote(v, safe="-_.~")) for k, v in query)
        search = "&".join(f"{k}={v}" for k, v in pairs)
        names = sorted(headers)
        lines = "".join(f"{name}:{headers[name]}\n" for name in names)
        digest = hashlib.sha256(body).hexdigest()
        canonical = f"{method}\n/\n{search}\n{lines}\n{';'.join(names)}\n{digest}"
        scope = f"{when[:8]}/{region}/imagex/aws4_request"
        text = f"AWS4-HMAC-SHA256\n{when}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
        key = b"AWS4" + keys["secret_access_key"].encode()
        for part in scope.split("/"):
            key = hmac.new(key, part.encode(), hashlib.sha256).digest()
        signature = hmac.new(key, text.encode(), hashlib.sha256).hexdigest()
        headers["authorization"] = (
            f"AWS4-HMAC-SHA256 Credential={keys['access_key_id']}/{scope}, SignedHeaders={';'.join(names)}, "
            f"Signature={signature}"
        )
        headers |= {name.replace("_", "-"): value for name, value in changes.items()}
        url = f"{self.running.urls[gateway]}/?{search}"
        return self.http.request(method, url, headers=headers, content=body)

    def query(self, action, service="tb4s082cfz", **more):
        return [("Action", action), ("Version", "2018-08-01"), ("ServiceId", service), *more.items()]

    def apply(self, keys=None, **more):
        reply = self.call(keys or self.keys(), self.query("ApplyImageUpload", **more))
        assert reply.status_code == 200, reply.text
        address = reply.json()["Result"]["UploadAddress"]
        (store,) = address["StoreInfos"]
        return Applied(store["StoreUri"], store["Auth"], address["SessionKey"])

    def commit(self, applied, keys=None, **members):
        body = json.dumps({"SessionKey": applied.session, "SuccessOids": [applied.uri], **members}).encode()
        return self.call(keys or self.keys(), self.query("CommitImageUpload"), body)

    def put(self, applied, data, host="tos1", base="/upload/v1/", method="POST", query="", crc=None, **changes):
        headers = {"authorization": applied.auth, "content-crc32": crc or f"{zlib.crc32(data):08x}"}
        headers |= {name.replace("_", "-"): value for name, value in changes.items()}
        headers = {name: value for name, value in headers.items() if value}
        url = f"{self.running.urls[host]}{base}{applied.uri}{query}"
        return self.http.request(method, url, content=data, headers=headers)

    def sdk(self, applied, query, data=b"", method="PUT", gateway=True, **changes):
        mode = {"x_storage_mode": "gateway"} if gateway else {}
        return self.put(applied, data, "tos2", "/", method, f"?{query}", **mode, **changes)


@pytest.fixture
def client(running):
    return Client(running)


def error(reply):
    return reply.json()["ResponseMetadata"]["Error"]["CodeN"]


# Signing in.


def test_keys_are_issued_for_an_hour_at_both_services(client):
    for region, service in (("cn", "tb4s082cfz"), ("us", "wopfjsm1ax")):
        answer = client.token(region).json()
        data = answer["data"]
        assert answer["ret"] == "0"
        assert data["access_key_id"].startswith("AKTP")
        assert data["session_token"].startswith("STS2")
        assert (data["service_id"], data["space_name"]) == (service, service)
        assert int(data["expired_time"]) - int(data["current_time"]) == 3600


@pytest.mark.parametrize("reply", ["flat", "numeric"])
def test_an_answer_has_other_forms_by_switch(client, reply):
    client.options(reply=reply)
    answer = client.token().json()
    assert (answer if reply == "flat" else answer["data"]).keys() >= set(KEYS)
    assert answer.get("ret", 0) == 0


@pytest.mark.parametrize(
    ("arguments", "ret"),
    [
        ({"Cookie": "sessionid=other"}, "1015"),
        ({"Cookie": ""}, "1015"),
        ({"body": {"scene": 1}}, "1000"),
        ({"body": {"scene": "2"}}, "1000"),
        ({"body": {}}, "1000"),
        ({"body": []}, "1000"),
        ({"Appid": "1"}, "1014"),
        ({"Origin": "https://elsewhere.example"}, "1014"),
        ({"User_Agent": "curl"}, "1014"),
        ({"Accept_Encoding": "identity"}, "1014"),
        ({"region": "us", "params": {}}, "1000"),
        ({"region": "us", "params": US | {"aid": "513695"}}, "1000"),
    ],
)
def test_a_wrong_sign_in_is_refused_with_200_and_a_reason(client, arguments, ret):
    reply = client.token(**arguments)
    assert reply.status_code == 200
    assert reply.json()["ret"] == ret
    assert "data" not in reply.json()


@pytest.mark.parametrize(
    ("region", "page"), [("cn", "https://jimeng.jianying.com"), ("us", "https://api-proxy-1.deno.dev")]
)
def test_the_pages_own_origin_is_known(client, region, page):
    assert "ret" in (refused := client.token(region, Origin=page).json())  # its Referer is another page's
    assert refused["ret"] == "1014"
    assert client.token(region, Origin=page, Referer=f"{page}/").json()["ret"] == "0"


def test_the_cookie_counts_to_the_letter_unless_a_switch_says_otherwise(client):
    session = client.account["session_cn"]
    assert client.token(Cookie=f"sessionid={session}").json()["ret"] == "1014"
    assert client.token(Cookie=client.cookie().replace("; sid_tt", ";  sid_tt", 1)).json()["ret"] == "1014"
    client.options(strict=False)
    assert client.token(Cookie=f"sessionid={session}").json()["ret"] == "0"


# The API.


def test_a_rightly_signed_call_is_taken_with_and_without_the_host_and_in_any_region(client):
    keys = client.keys()
    for arguments in ({}, {"host": True}, {"region": "anywhere"}):
        assert client.call(keys, client.query("ApplyImageUpload"), **arguments).status_code == 200


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda keys, arguments: keys.update(secret_access_key="other"), 100010),
        (lambda keys, arguments: keys.update(access_key_id="AKTPother"), 100009),
        (lambda keys, arguments: keys.update(session_token="STS2other"), 100026),
        (lambda keys, arguments: arguments.update(authorization=""), 100024),
        (lambda keys, arguments: arguments.update(x_amz_date="20260102T03:04:05Z"), 100024),
        (lambda keys, arguments: arguments.update(when=1.7e9), 100006),
        (lambda keys, arguments: arguments.update(x_amz_content_sha256="0" * 64), 100010),
        (lambda keys, arguments: arguments.update(query=[("Action", "Other"), ("Version", "2018-08-01")]), 100008),
        (lambda keys, arguments: arguments.update(query=[("Action", "ApplyImageUpload")]), 100008),
        (
            lambda keys, arguments: arguments.update(
                query=[("Action", "ApplyImageUpload"), ("Version", "2018-08-01"), ("ServiceId", "wopfjsm1ax")]
            ),
            601009,
        ),
        (
            lambda keys, arguments: arguments.update(query=[("Action", "ApplyImageUpload"), ("Version", "2018-08-01")]),
            600008,
        ),
        (lambda keys, arguments: arguments.update(gateway="veimagex"), 100024),
    ],
)
def test_a_wrong_call_is_refused(client, change, code):
    keys, arguments = client.keys(), {"query": client.query("ApplyImageUpload")}
    change(keys, arguments)
    reply = client.call(keys, **arguments)
    assert error(reply) == code
    assert "Result" not in reply.json()


def test_keys_end_with_their_life(client, running):
    keys = client.keys()
    running.advance(3601)
    reply = client.call(keys, client.query("ApplyImageUpload"))
    assert (reply.status_code, error(reply)) == (401, 100026)


def test_calls_have_a_rate(client):
    client.options(rate=2)
    keys = client.keys()
    codes = [client.call(keys, client.query("ApplyImageUpload")).status_code for _ in range(4)]
    assert codes[0] == 200
    assert 429 in codes


def test_the_key_may_get_an_extension(client):
    assert client.apply(FileExtension=".png").uri.endswith(".png")


# The hosts.


def test_a_file_is_no_object_before_its_commit(client, running):
    applied = client.apply()
    reply = client.put(applied, b"hello")
    assert reply.json() == {
        "code": 2000,
        "apiversion": "v1",
        "message": "Success",
        "data": {"crc32": "3610a686", "hash": "3610a686", "key": applied.uri},
    }
    assert running.objects() == {}
    for _ in range(2):  # a commit says the same twice
        (result,) = client.commit(applied).json()["Result"]["Results"]
        assert result == {"Uri": applied.uri, "UriStatus": 2000}
    assert running.objects()[applied.key]["etag"] == hashlib.md5(b"hello").hexdigest()
    bucket = applied.uri.partition("/")[0]
    assert running.http.get(f"{running.urls['cdn']}/{bucket}/{applied.key}").content == b"hello"


def test_a_commit_of_nothing_says_so(client):
    (result,) = client.commit(client.apply()).json()["Result"]["Results"]
    assert result["UriStatus"] == 2001


def test_a_commit_without_names_tells_nothing_of_what_is_no_picture(client):
    picture = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + struct.pack(">II", 640, 480) + b"\0" * 20
    for data, status in ((b"hello", 0), (picture, 2000)):
        applied = client.apply()
        client.put(applied, data)
        result = client.commit(applied, SuccessOids=None).json()["Result"]
        assert result["Results"][0]["UriStatus"] == status
    (facts,) = result["PluginResult"]
    assert (facts["ImageWidth"], facts["ImageHeight"], facts["ImageFormat"]) == (640, 480, "png")
    assert (facts["ImageSize"], facts["ImageMd5"]) == (len(picture), hashlib.md5(picture).hexdigest())


def test_a_session_is_needed_and_ends(client, running):
    applied = client.apply()
    assert error(client.commit(applied, SessionKey="other")) == 600003
    assert error(client.commit(applied, SuccessOids=["other/key"])) == 600003
    running.advance(21601)
    assert error(client.commit(applied)) == 600003


@pytest.mark.parametrize(
    ("arguments", "status", "code"),
    [
        ({"crc": "00000000"}, 400, 4007),
        ({"content_crc32": None}, 400, 4007),
        ({"crc": str(zlib.crc32(b"hello"))}, 400, 4007),
        ({"crc": "3610A686"}, 400, 4007),
        ({"authorization": "other"}, 403, 4001),
        ({"data": b""}, 400, 4008),
    ],
)
def test_a_wrong_upload_is_refused(client, arguments, status, code):
    reply = client.put(client.apply(), **{"data": b"hello", **arguments})
    assert (reply.status_code, reply.json()["code"]) == (status, code)


def test_a_checksum_can_be_left_to_chance(client):
    assert client.put(client.apply(), b"hello", crc="Ignore").status_code == 200


def test_leading_zeros_count_unless_a_switch_says_otherwise(client):
    assert client.put(client.apply(), b"pad51", crc="5b26c4").status_code == 400
    client.options(padded=False)
    assert client.put(client.apply(), b"pad51", crc="5b26c4").status_code == 200


def test_a_permission_is_for_one_object_and_ends(client, running):
    one, other = client.apply(), client.apply()
    other.auth = one.auth
    assert client.put(other, b"a").status_code == 403
    running.advance(21601)
    assert client.put(one, b"a").status_code == 403


def test_the_announced_size_is_held_to(client):
    assert client.put(client.apply(FileSize="6"), b"hello").status_code == 400
    assert client.put(client.apply(FileSize="5"), b"hello").status_code == 200


# Parts.


def begin(client, applied, **changes):
    return client.sdk(applied, "uploads", **changes).json()["payload"]["uploadID"]


@pytest.mark.parametrize(("gateway", "first"), [(True, 1), (False, 0)])
def test_parts_come_in_any_order_and_are_listed(client, running, gateway, first):
    applied = client.apply()
    parts = [bytes([number]) * (5 * MIB) for number in range(2)] + [b"end"]
    id_ = begin(client, applied, gateway=gateway)
    for number in (2, 0, 1, 0):  # one twice: it replaces itself
        search = f"partNumber={number + first}&uploadID={id_}"
        reply = client.sdk(applied, search, parts[number], gateway=gateway)
        assert reply.json()["success"] == 0, reply.text
    listed = client.sdk(applied, f"uploadID={id_}", method="GET").json()["payload"]["partList"]
    assert [int(part["partNumber"]) - first for part in listed] == [0, 1, 2]
    text = ",".join(f"{number + first}:{zlib.crc32(part):08x}" for number, part in enumerate(parts))
    merge = client.sdk(applied, f"uploadID={id_}", text.encode(), gateway=gateway)
    assert merge.json()["success"] == 0, merge.text
    again = client.sdk(applied, f"uploadID={id_}", text.encode(), gateway=gateway)
    assert (again.status_code, again.json()["error"]["error_code"]) == (400, 4025)
    assert client.sdk(applied, f"uploadID={id_}", method="GET").status_code == 404
    assert client.commit(applied).json()["Result"]["Results"][0]["UriStatus"] == 2000
    assert running.objects()[applied.key]["size"] == 10 * MIB + 3


def test_the_page_has_parts_of_its_own(client, running):
    applied = client.apply()
    id_ = client.put(applied, b"", query="?uploadmode=part&phase=init").json()["data"]["uploadid"]
    parts = [b"a" * (5 * MIB), b"b"]
    for number, part in enumerate(parts, 1):
        reply = client.put(applied, part, query=f"?uploadid={id_}&part_number={number}&phase=transfer")
        assert reply.json()["code"] == 2000, reply.text
    text = ",".join(f"{number}:{zlib.crc32(part):08x}" for number, part in enumerate(parts, 1))
    reply = client.put(applied, text.encode(), query=f"?uploadmode=part&phase=finish&uploadid={id_}")
    assert reply.json()["code"] == 2000, reply.text
    client.commit(applied)
    assert running.objects()[applied.key]["size"] == 5 * MIB + 1


@pytest.mark.parametrize(
    "text",
    ["", "[]", "1:00000000,2:{b}", "2:{b},1:{a}", "1:{a}", "1:{a}\n2:{b}", "1:{a},2:{b},3:{b}", "3:{a},4:{b}"],
)
def test_a_list_that_does_not_agree_joins_nothing(client, text):
    applied = client.apply()
    id_ = begin(client, applied)
    parts = {"a": b"a" * (5 * MIB), "b": b"b"}
    for number, part in enumerate(parts.values(), 1):
        client.sdk(applied, f"partNumber={number}&uploadID={id_}", part)
    body = text.format(**{name: f"{zlib.crc32(part):08x}" for name, part in parts.items()}).encode()
    reply = client.sdk(applied, f"uploadID={id_}", body)
    assert (reply.status_code, reply.json()["error"]["error_code"]) == (400, 4019)


def test_a_small_part_that_is_not_the_last_joins_nothing(client):
    applied = client.apply()
    id_ = begin(client, applied)
    for number in (1, 2):
        client.sdk(applied, f"partNumber={number}&uploadID={id_}", b"small")
    crc = f"{zlib.crc32(b'small'):08x}"
    reply = client.sdk(applied, f"uploadID={id_}", f"1:{crc},2:{crc}".encode())
    assert reply.json()["error"]["error_code"] == 4019


def test_an_upload_belongs_to_its_object_and_ends(client, running):
    one, other = client.apply(), client.apply()
    id_ = begin(client, one)
    assert client.sdk(other, f"partNumber=1&uploadID={id_}", b"a").status_code == 404
    assert client.sdk(one, "partNumber=1&uploadID=other", b"a").status_code == 404
    client.options(upload_life=10)
    running.advance(11)
    assert client.sdk(one, f"partNumber=1&uploadID={id_}", b"a").status_code == 404


def test_an_upload_outlives_a_restart(start):
    first = start()
    client = Client(first)
    applied = client.apply()
    id_ = begin(client, applied)
    client.sdk(applied, f"partNumber=1&uploadID={id_}", b"a")
    keys = client.keys()
    first.stop()
    client = Client(start())
    reply = client.sdk(applied, f"uploadID={id_}", f"1:{zlib.crc32(b'a'):08x}".encode())
    assert reply.json()["success"] == 0
    assert client.commit(applied, keys).json()["Result"]["Results"][0]["UriStatus"] == 2000


def test_no_secret_is_in_the_log(client, running):
    keys = client.keys()
    applied = client.apply(keys)
    client.put(applied, b"a")
    client.commit(applied, keys)
    text = json.dumps(running.log()) + "\n".join(running.lines)
    for secret in (client.account["session_cn"], keys["session_token"], keys["secret_access_key"], applied.auth):
        assert secret not in text
