import concurrent.futures
import hashlib
import http.server
import json
import os
import socket
import threading

import pytest

MIB = 1024 * 1024
LIMIT = 4 * MIB


def stored(running, name):
    with open(f"{running.sandbox.data}/objects/voddumb01/{name}", "rb") as file:
        return file.read()


@pytest.mark.parametrize("size", [0, 1, LIMIT - 1, LIMIT, LIMIT + 1, 2 * LIMIT])
def test_every_size_arrives_whole(running, size):
    data = bytes(range(256)) * (size // 256) + bytes(size % 256)
    grant = running.init()
    running.send(grant, data)
    assert stored(running, grant.object) == data
    assert running.objects()[grant.object]["etag"] == hashlib.md5(data).hexdigest()
    puts = running.log("put")
    assert [entry["complete"] for entry in puts] == [False] * (len(puts) - 1) + [True]
    assert sum(entry["received"] for entry in puts) == size


def test_an_object_is_visible_only_when_it_is_whole(running):
    grant = running.grant("o.bin")
    context = running.put(grant, b"abc").json()["context"]
    assert running.objects() == {}
    assert running.download(grant).status_code == 404
    assert running.put(grant, b"def", 3, True, context, "nos2").json()["offset"] == 6
    assert stored(running, "o.bin") == b"abcdef"


@pytest.mark.parametrize(
    "name", ["a/b 测试.txt", "per%cent", "plus+sign", "a%2Fb", "x/../y", "a//b", "/lead", "trail/", "q?#&"]
)
def test_a_name_is_kept_exactly(running, name):
    running.send(running.grant(name), b"content")
    assert list(running.objects()) == [name]
    path = "".join(f"%{byte:02X}" for byte in name.encode())
    assert running.http.get(f"{running.urls['cdn']}/voddumb01/{path}").content == b"content"


def test_an_encoded_slash_makes_a_folder(running):
    running.send(running.grant("a/b 测试.txt"), b"content")
    assert stored(running, "a/b 测试.txt") == b"content"


@pytest.mark.parametrize("name", ["x" * 256, "nul\0"])
def test_a_name_that_no_disk_holds_is_refused(running, name):
    assert running.put(running.grant(name), b"", complete=True).status_code == 400


def test_a_file_in_the_way_of_a_folder_is_refused(running):
    running.send(running.grant("a"), b"1")
    assert running.put(running.grant("a/b"), b"2", complete=True).status_code == 400
    assert stored(running, "a") == b"1"


@pytest.mark.parametrize("path", ["/voddumb01", "/voddumb01/", "//o", "/voddumb01/a/b", "/"])
def test_a_path_has_two_segments(running, path):
    url = f"{running.urls['nos1']}{path}?offset=0&complete=true&version=1.0"
    reply = running.http.post(url, headers={"x-nos-token": running.token("voddumb01", "a/b")})
    assert reply.status_code == 400
    assert reply.json().keys() == {"requestId", "errCode", "errMsg"}


def test_plain_slashes_are_a_switch(running):
    running.options(plain_slashes=True)
    url = f"{running.urls['nos1']}/voddumb01/a/b?offset=0&complete=true&version=1.0"
    reply = running.http.post(url, content=b"", headers={"x-nos-token": running.token("voddumb01", "a/b")})
    assert reply.status_code == 200


@pytest.mark.parametrize(
    "query",
    [
        "offset=0&complete=true",
        "offset=0&complete=true&version=2.0",
        "complete=true&version=1.0",
        "offset=0&version=1.0",
        "offset=0&complete=True&version=1.0",
        "offset=0&complete=1&version=1.0",
        "offset=-1&complete=true&version=1.0",
        "offset=x&complete=true&version=1.0",
        "offset=&complete=true&version=1.0",
        "offset=0&offset=0&complete=true&version=1.0",
        "offset=0&complete=true&version=1.0&context=%ff",
    ],
)
def test_a_wrong_parameter_is_refused(running, query):
    assert running.put(running.grant("o"), b"x", query=query).status_code == 400
    assert running.objects() == {}


def test_the_order_of_parameters_is_free(running):
    assert running.put(running.grant("o"), b"x", query="context=&version=1.0&complete=true&offset=0").status_code == 200


def test_a_chunk_has_at_most_four_mebibytes(running):
    grant = running.grant("o")
    assert running.put(grant, bytes(LIMIT + 1), complete=True).status_code == 400
    assert running.log("put")[0].get("stored") is None
    assert running.put(grant, bytes(LIMIT), complete=True).status_code == 200


def test_a_chunk_announces_its_length(running):
    grant = running.grant("o")
    url = running.address(grant, query="offset=0&complete=true&version=1.0")
    assert running.http.post(url, content=iter([b"abc"]), headers={"x-nos-token": grant.token}).status_code == 400


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "other"},
        {"bucket": "other"},
        {"expires": 1},
        {"access": "somebody"},
        {"secret": "wrong"},
    ],
)
def test_a_token_is_for_one_object_and_its_time(running, changes):
    grant = running.grant("o")
    grant.token = running.token(**{"bucket": "voddumb01", "name": "o", **changes})
    assert running.put(grant, b"x", complete=True).status_code == 403
    assert running.ask(grant, "any").status_code == 403


def test_a_request_without_token_is_refused(running):
    grant = running.grant("o")
    grant.token = ""
    assert running.put(grant, b"x", complete=True).status_code == 403


def test_a_token_expires_in_the_middle(running):
    running.options(token_life=60)
    grant = running.init()
    context = running.put(grant, b"abc").json()["context"]
    running.advance(61)
    assert running.put(grant, b"def", 3, True, context).status_code == 403
    assert running.ask(grant, context).status_code == 403
    grant.token = running.token(grant.bucket, grant.object)
    assert running.ask(grant, context).json()["offset"] == 3
    assert running.put(grant, b"def", 3, True, context).status_code == 200


def test_a_context_can_be_bound_to_its_token(running):
    running.options(context_bound_to_token=True)
    grant = running.grant("o")
    context = running.put(grant, b"abc").json()["context"]
    assert running.ask(running.grant("o", expires=4_000_000_000), context).status_code == 400
    assert running.ask(grant, context).status_code == 200


@pytest.mark.parametrize(("sizes", "status"), [((3, 5), 200), ((5, 9), 400), ((0, 3), 400)])
def test_sizes_of_the_policy_are_checked_at_the_end(running, sizes, status):
    grant = running.grant("o", ObjectSizeMin=sizes[0], ObjectSizeMax=sizes[1])
    context = running.put(grant, b"ab").json()["context"]
    assert running.put(grant, b"cd", 2, True, context).status_code == status
    assert ("o" in running.objects()) == (status == 200)


def test_a_content_type_outside_the_policy_is_refused(running):
    grant = running.grant("o", MimeLimit="image/png;image/jpeg")
    assert running.put(grant, b"x", complete=True, content_type="text/plain").status_code == 403
    assert running.put(grant, b"x", complete=True, content_type="image/png").status_code == 200


def test_only_the_first_content_type_and_metadata_count(running):
    grant = running.grant("o")
    context = running.put(grant, b"ab", content_type="video/mp4", x_nos_meta_who="me").json()["context"]
    running.put(grant, b"cd", 2, True, context, content_type="text/plain", x_nos_meta_who="you")
    headers = running.download(grant).headers
    assert headers["content-type"] == "video/mp4"
    assert headers["x-nos-meta-who"] == "me"


def test_a_later_chunk_needs_a_context(running):
    assert running.put(running.grant("o"), b"x", offset=3).status_code == 400


@pytest.mark.parametrize("status", [404, 400])
def test_an_unknown_context(running, status):
    running.options(unknown_context=status)
    grant = running.grant("o")
    context = running.put(grant, b"abc").json()["context"]
    altered = context[:-1] + ("0" if context[-1] != "0" else "1")
    assert running.put(grant, b"x", 3, True, altered).status_code == status
    assert running.ask(grant, altered).status_code == 404


def test_a_context_belongs_to_one_object(running):
    context = running.put(running.grant("o"), b"abc").json()["context"]
    other = running.grant("p")
    assert running.put(other, b"x", 3, True, context).status_code == 400
    assert running.ask(other, context).status_code == 400


def test_a_context_rests_for_a_limited_time(running):
    grant = running.grant("o")
    context = running.put(grant, b"abc").json()["context"]
    running.advance(23 * 3600)
    assert running.ask(grant, context).status_code == 200
    running.advance(3700)
    assert running.ask(grant, context).status_code == 404


def test_an_offset_beyond_what_is_stored_is_refused(running):
    grant = running.grant("o")
    context = running.put(grant, b"abc").json()["context"]
    assert running.put(grant, b"x", 4, True, context).status_code == 400


def test_a_smaller_offset_is_answered_with_what_is_stored(running):
    grant = running.grant("o")
    context = running.put(grant, b"abcdef").json()["context"]
    assert running.put(grant, b"XY", 0, False, context).json()["offset"] == 6
    assert running.put(grant, b"def", 3, True, context).json()["offset"] == 6
    assert stored(running, "o") == b"abcdef"


def test_a_smaller_offset_can_rewrite(running):
    running.options(rewrite=True)
    grant = running.grant("o")
    context = running.put(grant, b"abcdef").json()["context"]
    assert running.put(grant, b"XY", 1, False, context).json()["offset"] == 3
    running.put(grant, b"Z", 3, True, context)
    assert stored(running, "o") == b"aXYZ"
    assert running.objects()["o"]["etag"] == hashlib.md5(b"aXYZ").hexdigest()


def test_a_request_can_be_taken_in_part(running):
    running.options(max_accept=1000)
    grant = running.grant("o")
    first = running.put(grant, bytes(1500), 0, True).json()
    assert first["offset"] == 1000
    assert running.objects() == {}
    assert running.put(grant, bytes(500), 1000, True, first["context"]).json()["offset"] == 1500


def test_contexts_rotate_and_the_older_stay_valid(running):
    running.options(rotate_context_every=1)
    grant = running.grant("o")
    first = running.put(grant, b"ab").json()["context"]
    second = running.put(grant, b"cd", 2, False, first).json()["context"]
    assert first != second
    assert running.ask(grant, first).json()["offset"] == running.ask(grant, second).json()["offset"] == 4
    running.put(grant, b"ef", 4, True, second)
    assert running.ask(grant, first).status_code == running.ask(grant, second).status_code == 404


@pytest.mark.parametrize("flag", ["uploadContext", "uploadContext="])
def test_the_query_has_a_flag(running, flag):
    grant = running.grant("o")
    context = running.put(grant, b"abc").json()["context"]
    reply = running.ask(grant, context, "nos2", flag)
    assert reply.json().keys() == {"requestId", "offset"}
    assert reply.json()["offset"] == 3


def test_the_query_needs_its_flag_and_context(running):
    grant = running.grant("o")
    assert running.ask(grant, "x", flag="flag").status_code == 400
    assert running.ask(grant, "").status_code == 400


def test_an_empty_last_chunk_completes(running):
    grant = running.grant("o")
    context = running.put(grant, b"abc").json()["context"]
    assert running.put(grant, b"", 3, True, context).json()["offset"] == 3
    assert stored(running, "o") == b"abc"


def test_the_same_object_again_overwrites(running):
    grant = running.grant("o")
    running.send(grant, b"old content")
    running.send(grant, b"new")
    assert stored(running, "o") == b"new"


def test_the_md5_of_the_whole_file_is_checked_at_the_end(running):
    right, wrong = hashlib.md5(b"123456789").hexdigest(), hashlib.md5(b"").hexdigest()
    assert right == "25f9e794323b453885f5181f1b624d0b"
    for digest, status in ((right, 200), (wrong, 400)):
        grant = running.grant(f"{status}")
        context = running.put(grant, b"12345", content_md5=digest).json()["context"]
        assert running.put(grant, b"6789", 5, True, context, content_md5=digest).status_code == status
        assert running.ask(grant, context).status_code == 404
    assert list(running.objects()) == ["200"]
    assert running.put(running.grant("o"), b"", complete=True, content_md5="nonsense").status_code == 400


def test_the_md5_of_each_chunk_is_a_switch(running):
    running.options(md5_mode="per_chunk")
    grant = running.grant("o")
    assert running.put(grant, b"ab", content_md5=hashlib.md5(b"ba").hexdigest()).status_code == 400
    context = running.put(grant, b"ab", content_md5=hashlib.md5(b"ab").hexdigest()).json()["context"]
    assert running.put(grant, b"cd", 2, True, context, content_md5=hashlib.md5(b"xx").hexdigest()).status_code == 400
    assert running.ask(grant, context).json()["offset"] == 2
    assert running.put(grant, b"cd", 2, True, context, content_md5=hashlib.md5(b"cd").hexdigest()).status_code == 200


def test_md5_can_be_ignored(running):
    running.options(md5_mode="off")
    assert running.put(running.grant("o"), b"x", complete=True, content_md5="0" * 32).status_code == 200


@pytest.mark.parametrize(("form", "context"), [("null", "null"), ("empty", ""), ("absent", None)])
def test_the_last_answer_has_many_forms(running, form, context):
    running.options(final_context=form, request_id="requestID", offset_as_text=True)
    answer = running.put(running.grant("o"), b"x", complete=True).json()
    assert (answer.get("context"), answer["offset"]) == (context, "1")
    assert "requestID" in answer


@pytest.mark.parametrize("keep", [False, True])
def test_a_body_that_breaks_is_kept_only_by_switch(running, keep):
    running.options(keep_partial=keep)
    grant = running.grant("o")
    context = running.put(grant, b"abc").json()["context"]
    with socket.create_connection(("127.0.0.1", running.sandbox.port + 3)) as sock:
        head = f"POST /voddumb01/o?offset=3&complete=true&version=1.0&context={context} HTTP/1.1\r\nHost: x\r\n"
        sock.sendall(f"{head}x-nos-token: {grant.token}\r\nContent-Length: 6\r\nExpect: 100-continue\r\n\r\n".encode())
        assert sock.recv(100).startswith(b"HTTP/1.1 100")  # thus the server reads before the break
        sock.sendall(b"def")
        sock.shutdown(socket.SHUT_WR)
        assert sock.recv(100) == b""
    # Any further request of the same upload waits for the broken one.
    offset = running.put(grant, b"", 3, False, context).json()["offset"]
    assert offset in ((3, 4, 5, 6) if keep else (3,))
    assert running.log("put")[1]["status"] is None
    running.put(grant, b"abcdef"[offset:], offset, True, context)
    assert stored(running, "o") == b"abcdef"


def test_uploads_survive_a_restart(start, tmp_path):
    first = start()
    grant = first.init()
    context = first.put(grant, b"abc").json()["context"]
    first.stop()
    second = start()
    assert second.ask(grant, context).json()["offset"] == 3
    second.put(grant, b"def", 3, True, context)
    third = second.ret("video/query", {"objectNames": [grant.object]})
    assert third["count"] == 1
    second.stop()
    last = start()
    assert last.download(grant).content == b"abcdef"
    assert last.objects()[grant.object]["etag"] == hashlib.md5(b"abcdef").hexdigest()
    assert last.ret("video/query", {"objectNames": [grant.object]}) == third


class Listener(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        self.server.bodies.append(self.rfile.read(int(self.headers["content-length"])))
        self.send_response(self.server.status)
        self.end_headers()
        self.wfile.write(b'{"ok":true}')

    def log_message(self, *arguments):
        pass


@pytest.fixture
def listener():
    with http.server.HTTPServer(("127.0.0.1", 0), Listener) as server:
        server.bodies, server.status = [], 200
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("form", ["json", "base64"])
def test_the_policys_callback_is_made(running, listener, form):
    running.options(callback_form=form)
    url = f"http://127.0.0.1:{listener.server_port}/told"
    grant = running.grant("o", CallbackUrl=url, CallbackBody="n=$(Object)&s=$(ObjectSize)")
    answer = running.put(grant, b"abc", complete=True).json()
    assert listener.bodies == [b"n=o&s=3"]
    assert answer["callbackRetMsg"] == {"json": '{"ok":true}', "base64": "eyJvayI6dHJ1ZX0="}[form]


@pytest.mark.parametrize("kept", ["stored", "discarded"])
def test_a_failed_callback_is_no_success(running, listener, kept):
    running.options(on_520=kept)
    listener.status = 500
    grant = running.grant("o", CallbackUrl=f"http://127.0.0.1:{listener.server_port}/told")
    context = running.put(grant, b"abc").json()["context"]
    assert running.put(grant, b"def", 3, True, context).status_code == 520
    assert ("o" in running.objects()) == (kept == "stored")
    assert running.ask(grant, context).status_code == 404


def test_the_log_tells_each_chunk_and_no_secret(running):
    grant = running.init()
    context = running.put(grant, b"abc").json()["context"]
    running.put(grant, b"def", 3, True, context, "nos2")
    first, second = running.log("put")
    assert (first["service"], first["offset"], first["length"], first["complete"], first["context"]) == (
        "nos1",
        0,
        3,
        False,
        "",
    )
    assert (second["service"], second["offset"], second["context"], second["status"]) == (
        "nos2",
        3,
        context,
        200,
    )
    text = json.dumps(running.log()) + "\n".join(running.lines)
    assert grant.token.split(":")[1] not in text
    assert running.account["app_secret"] not in text
    assert first["headers"]["x-nos-token"] == running.log("init")[0]["headers"]["checksum"] == "***"


def test_many_clients_at_once(running):
    grants = [running.init() for _ in range(8)]
    data = [bytes([number]) * (MIB + number) for number in range(8)]
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda pair: running.send(*pair, chunk=MIB // 2), zip(grants, data, strict=True)))
    assert [stored(running, grant.object) for grant in grants] == data


def test_the_same_chunk_twice_at_once_is_stored_once(running):
    grant = running.grant("o")
    context = running.put(grant, b"abc").json()["context"]
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        replies = list(
            pool.map(lambda node: running.put(grant, bytes(MIB), 3, False, context, node), ["nos1", "nos2"] * 2)
        )
    assert {reply.json()["offset"] for reply in replies} == {3 + MIB}
    assert sum(entry["stored"] for entry in running.log("put")) == 3 + MIB


def test_bytes_of_a_request_that_never_ended_do_not_count_after_a_restart(start):
    first = start()
    grant = first.grant("o")
    context = first.put(grant, b"abc").json()["context"]
    first.stop()
    (partial,) = os.listdir(f"{first.sandbox.data}/sandbox/partial")
    with open(f"{first.sandbox.data}/sandbox/partial/{partial}", "ab") as file:
        file.write(b"rubbish")
    second = start()
    second.put(grant, b"d", 3, True, context)
    assert second.download(grant).content == b"abcd"
    assert os.listdir(f"{first.sandbox.data}/sandbox/partial") == []
