import base64
import hashlib
import hmac
import json

import httpx
import pytest

JPEG = b"\xff\xd8\xff\xe0" + b"x" * 100 + b"\xff\xd9"
AK, SK = "sandboxXinhuaAk000000001", "sandbox-xinhua-secret-0001"


@pytest.fixture
def news(running):
    return News(running)


class News:
    """A client written from the document."""

    def __init__(self, running):
        self.running = running
        self.base = running.urls["xinhua"]

    def request_token(self, ak=AK, sk=SK, shift=0, life="3600", models="pg-xhs-go"):
        info = f"{ak}:{int(self.running.now()) + shift}:{life}:{models}"
        return hmac.new(sk.encode(), info.encode(), hashlib.sha256).hexdigest(), info

    def jwt(self, **changes):
        token = ":".join(self.request_token(**changes))
        return self.running.http.post(f"{self.base}/v1/token/jwt", json={"token": token})

    def bearer(self, **changes):
        return {"Authorization": f"Bearer {self.jwt(**changes).json()['token']}"}

    def call(self, method, path, body=None, headers=None):
        return self.running.http.request(
            method, f"{self.base}/v1/{path}", json=body, headers=self.bearer() if headers is None else headers
        )

    def upload(self, key, content=JPEG):
        answer = self.call("GET", "upload/token", {"keys": [key]}).json()
        fields = {"token": answer["tokens"][0]["token"], "key": key, "x:name": "mine.jpg"}
        return self.running.http.post(
            self.running.urls["up1"] + "/", data=fields, files={"file": ("a.jpg", content, "image/jpeg")}
        )

    def task(self, key="a.jpg"):
        assert self.upload(key).status_code == 200
        return self.call("POST", "image/task", {"keys": [key]}).json()["data"][0]["taskID"]

    def options(self, **switches):
        assert self.running.control("PUT", "/options", json={"xinhua": switches}).status_code == 200


def part(jwt, number):
    text = jwt.split(".")[number]
    return json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))


def test_a_jwt_has_the_claims_of_the_document(news):
    jwt = news.jwt(life="72000").json()["token"]
    assert part(jwt, 0) == {"alg": "HS256", "typ": "JWT"}
    claims = part(jwt, 1)
    assert list(claims) == ["ak", "ms", "vt", "exp", "iat", "iss"]
    assert (claims["ak"], claims["exp"] - claims["iat"]) == (AK, 72000)


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({}, 200),
        ({"models": ""}, 200),
        ({"life": "259200"}, 200),
        ({"shift": -290}, 200),
        ({"shift": -310}, 400),
        ({"shift": 310}, 400),
        ({"life": "259201"}, 400),
        ({"life": "0"}, 400),
        ({"life": "x"}, 400),
        ({"sk": "other"}, 401),
        ({"ak": "other"}, 401),
        ({"models": "pg-other"}, 403),
        ({"models": "pg-xhs-go,pg-other"}, 403),
    ],
)
def test_request_tokens_are_checked(news, changes, status):
    assert news.jwt(**changes).status_code == status


def test_a_signature_that_stands_last_is_refused(news):
    signature, info = news.request_token()
    reply = news.running.http.post(f"{news.base}/v1/token/jwt", json={"token": f"{info}:{signature}"})
    assert reply.status_code in {400, 401}


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b"{}", b'{"token": 5}'])
def test_a_malformed_sign_in_is_refused(news, body):
    assert news.running.http.post(f"{news.base}/v1/token/jwt", content=body).status_code == 400


def test_every_other_call_needs_a_jwt_in_time(news):
    headers = news.bearer(life="60")
    forged = {"Authorization": headers["Authorization"][:-4] + "AAAA"}
    calls = [
        ("GET", "upload/token"),
        ("POST", "image/task"),
        ("POST", "image/watermark/1"),
        ("POST", "image/unwatermark/1"),
    ]
    for call in calls:
        assert news.call(*call, headers={}).status_code == 401
        assert news.call(*call, headers=forged).status_code == 401
        assert news.call(*call, headers=headers).status_code in {400, 404}
    news.running.advance(61)
    for call in calls:
        assert news.call(*call, headers=headers).status_code == 401


def test_upload_tokens_are_for_their_keys_alone(news):
    answer = news.call("GET", "upload/token", {"keys": ["a.jpg", "b.jpg"]}).json()
    assert [one["key"] for one in answer["tokens"]] == ["a.jpg", "b.jpg"]
    for one in answer["tokens"]:
        policy = json.loads(base64.urlsafe_b64decode(one["token"].rpartition(":")[2]))
        assert policy["scope"] == f"demo-c360:{one['key']}"
        assert (policy["insertOnly"], policy["fsizeLimit"], policy["mimeLimit"]) == (1, 1048576, "image/jpeg")
        assert abs(policy["deadline"] - 1800 - news.running.now()) < 5


@pytest.mark.parametrize("body", [None, {}, {"keys": []}, {"keys": "a.jpg"}, {"keys": [5]}, {"keys": [""]}])
def test_keys_must_be_in_the_body(news, body):
    assert news.call("GET", "upload/token?keys=a.jpg", body).status_code == 400


def test_only_get_gives_upload_tokens_but_by_a_switch(news):
    assert news.call("POST", "upload/token", {"keys": ["a.jpg"]}).status_code == 405
    news.options(other_requests=True)
    assert news.call("POST", "upload/token", {"keys": ["a.jpg"]}).status_code == 200
    assert news.call("GET", "upload/token?keys=a.jpg&keys=b.jpg").json()["tokens"][1]["key"] == "b.jpg"


def test_an_upload_is_answered_as_the_policy_says(news):
    answer = news.upload("a.jpg").json()
    assert (answer["key"], answer["size"], answer["bucket"], answer["name"]) == (
        "a.jpg",
        len(JPEG),
        "demo-c360",
        "mine.jpg",
    )
    assert answer["mimeType"] == "image/jpeg"
    assert news.upload("a.jpg", JPEG + b"other").status_code == 614
    assert news.upload("b.jpg", b"\x89PNG\r\n\x1a\n").status_code == 403
    assert news.upload("c.jpg", JPEG + bytes(1024 * 1024)).status_code == 413


def test_a_task_needs_its_picture(news):
    assert news.call("POST", "image/task", {"keys": ["nothing.jpg"]}).status_code == 400


def test_a_task_goes_on_look_by_look_to_a_marked_copy(news):
    task = news.task()
    states = [news.call("POST", f"image/watermark/{task}").json() for _ in range(4)]
    assert [one["taskStatus"] for one in states] == ["init", "running", "done", "done"]
    assert states[2] == states[3]
    assert (states[2]["detectStatus"], states[2]["detectMessage"]) == ("pass", [])
    made = news.running.http.get(states[2]["image"]).content
    assert made.startswith(b"\xff\xd8\xff\xfe\x00")
    assert made.endswith(JPEG[2:])
    assert b"watermark by the sandbox" in made


def test_a_use_is_counted_once_a_task_and_runs_out(news):
    news.options(looks=0, quota=1)
    first, second = news.task("a.jpg"), news.task("b.jpg")
    assert news.call("POST", f"image/unwatermark/{first}").json()["taskStatus"] == "running"
    for task in (first, second):
        news.call("POST", f"image/watermark/{task}")
    for _ in range(2):
        assert "unwatermark/" in news.call("POST", f"image/unwatermark/{first}").json()["image"]
    assert news.call("POST", f"image/unwatermark/{second}").status_code == 402
    assert [one.get("charged") for one in news.running.log("unwatermark")] == [None, first, None, None]


def test_an_unknown_task_is_not_found(news):
    assert news.call("POST", "image/watermark/" + "0" * 24).status_code == 404


@pytest.mark.parametrize(
    ("switches", "members"),
    [
        ({"outcome": "failed"}, {"taskStatus": "failed", "image": ""}),
        ({"image": "none"}, {"taskStatus": "done", "image": ""}),
        ({"detect": "suspected"}, {"detectStatus": "suspected", "detectMessage": ["face", "flag"]}),
    ],
)
def test_a_task_may_end_otherwise(news, switches, members):
    news.options(looks=0, **switches)
    assert members.items() <= news.call("POST", f"image/watermark/{news.task()}").json().items()


def test_answers_may_stand_in_an_envelope(news):
    news.options(enveloped=True)
    answer = news.jwt().json()
    assert (answer["status"], answer["message"], list(answer["data"])) == (0, "ok", ["token"])


def test_a_jwt_is_taken_by_no_other_host(news):
    news.upload("a.jpg")
    headers = news.bearer()
    http, urls = news.running.http, news.running.urls
    assert http.get(f"{urls['io']}/demo-c360/a.jpg").status_code == 200
    assert http.get(f"{urls['io']}/demo-c360/a.jpg", headers=headers).status_code == 403
    assert http.post(urls["up1"] + "/", headers=headers, data={"token": "x"}).status_code == 400


@pytest.mark.parametrize(
    ("spec", "answer"),
    [
        ("xinhua.tokens:fewer", ["a.jpg"]),
        ("xinhua.tokens:reordered", ["b.jpg", "a.jpg"]),
        ("xinhua.tokens:other-key", ["another.jpg"]),
    ],
)
def test_tokens_may_be_others_than_asked_for(news, spec, answer):
    news.running.faults(spec)
    tokens = news.call("GET", "upload/token", {"keys": ["a.jpg", "b.jpg"]}).json()["tokens"]
    assert [one["key"] for one in tokens] == answer


def test_a_use_is_charged_though_the_answer_is_lost(news):
    news.options(looks=0)
    task = news.task()
    news.call("POST", f"image/watermark/{task}")
    news.running.faults("xinhua.unwatermark:cut-after@1")
    with pytest.raises(httpx.TransportError):
        news.call("POST", f"image/unwatermark/{task}")
    (lost,) = news.running.log("unwatermark")
    assert (lost["charged"], lost["status"]) == (task, None)


def test_tasks_outlive_a_restart(start, tmp_path):
    before = News(start(tmp_path / "same"))
    before.options(looks=0)
    task = before.task()
    before.running.stop()
    after = News(start(tmp_path / "same"))
    after.options(looks=0)
    assert after.call("POST", f"image/watermark/{task}").json()["taskStatus"] == "done"
