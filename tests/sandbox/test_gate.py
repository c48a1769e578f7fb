"""Every fault as a client meets it."""

import time

import httpx
import pytest

MIB = 1024 * 1024
CUT = httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError


def begun(running, data=b"abc"):
    """A grant with one chunk in."""
    grant = running.grant("o")
    return grant, running.put(grant, data).json()["context"]


def finished(running, grant, context, data, offset):
    running.put(grant, data[offset:], offset, True, context)
    return running.download(grant).content == data


def test_cut_stores_nothing(running):
    grant, context = begun(running)
    running.faults("nos.put:cut@1")
    with pytest.raises(CUT):
        running.put(grant, bytes(MIB), 3, False, context)
    assert running.ask(grant, context).json()["offset"] == 3
    entry = running.log("put")[-1]
    assert (entry["fault"], entry["status"], entry["finished"]) == ("cut", None, True)


@pytest.mark.parametrize("keep", [False, True])
def test_cut_within_keeps_by_switch(running, keep):
    running.options(keep_partial=keep)
    grant, context = begun(running)
    running.faults("seed=1,nos.put:cut-within@1")
    with pytest.raises(CUT):
        running.put(grant, bytes(MIB), 3, False, context)
    offset = running.ask(grant, context).json()["offset"]
    assert (3 < offset < MIB) if keep else (offset == 3)
    assert finished(running, grant, context, b"abc" + bytes(MIB), offset)


def test_cut_within_an_empty_last_chunk_finishes_nothing(running):
    grant, context = begun(running)
    running.faults("nos.put:cut-within@1")
    with pytest.raises(CUT):
        running.put(grant, b"", 3, True, context)
    assert running.objects() == {}
    assert running.ask(grant, context).json()["offset"] == 3


def test_cut_after_has_stored(running):
    grant, context = begun(running)
    running.faults("nos.put:cut-after@1")
    with pytest.raises(CUT):
        running.put(grant, b"def", 3, False, context)
    assert running.ask(grant, context).json()["offset"] == 6


def test_cut_after_the_last_chunk_has_finished(running):
    grant, context = begun(running)
    running.faults("nos.complete:cut-after@1")
    with pytest.raises(CUT):
        running.put(grant, b"def", 3, True, context)
    assert running.ask(grant, context).status_code == 404
    assert running.download(grant).content == b"abcdef"


def test_cut_reply_sends_half(running):
    grant, context = begun(running)
    running.faults("nos.put:cut-reply@1")
    with pytest.raises(httpx.RemoteProtocolError, match="received 64 bytes, expected 128"):
        running.put(grant, b"def", 3, False, context)
    assert running.log("put")[-1]["status"] == 200
    assert running.ask(grant, context).json()["offset"] == 6


def test_cut_reply_of_a_download(running):
    grant = running.grant("o")
    running.send(grant, bytes(MIB))
    running.faults("cdn.get:cut-reply@1")
    got = []
    with running.http.stream("GET", f"{running.urls['cdn']}/voddumb01/o") as reply, pytest.raises(CUT):
        got.extend(reply.iter_raw())
    assert 0 < sum(map(len, got)) <= MIB // 2
    assert running.download(grant).content == bytes(MIB)


@pytest.mark.parametrize("fault", ["cut", "cut-within", "cut-after", "cut-reply"])
@pytest.mark.parametrize("call", ["vod.init", "lbs.get", "nos.query", "cdn.get"])
def test_every_call_can_be_cut(running, call, fault):
    grant, context = begun(running)
    running.send(running.grant("o"), b"there")
    requests = {
        "vod.init": running.init,
        "lbs.get": lambda: running.http.get(running.urls["lbs"] + "/lbs?version=1.0"),
        "nos.query": lambda: running.ask(grant, context),
        "cdn.get": lambda: running.download(grant),
    }
    running.faults(f"{call}:{fault}@1")
    with pytest.raises(CUT):
        requests[call]()
    requests[call]()


@pytest.mark.parametrize("status", [400, 403, 404, 500, 502, 503])
def test_a_status_of_a_node(running, status):
    grant, context = begun(running)
    running.faults(f"nos.*:{status}")
    for reply in (running.put(grant, b"def", 3, False, context), running.ask(grant, context)):
        assert reply.status_code == status
        assert reply.json().keys() == {"requestId", "errCode", "errMsg"}
    running.faults("")
    assert running.ask(grant, context).json()["offset"] == 3


def test_a_redirect_leads_to_the_other_node(running):
    grant, _ = begun(running)
    running.faults("nos.put:302@1")
    reply = running.put(grant, b"x", node="nos1")
    assert reply.status_code == 302
    assert reply.headers["location"].startswith(running.urls["nos2"] + "/voddumb01/o?")


@pytest.mark.parametrize("status", [500, 502])
def test_a_status_of_the_api_is_its_proxys(running, status):
    running.faults(f"vod.init:{status}@1")
    reply = running.vod("upload/init", {"originFileName": "a.mp4"})
    assert reply.status_code == status
    assert reply.headers["content-type"].startswith("text/html")


@pytest.mark.parametrize("code", [700, 710, 720, 723])
def test_a_code_of_the_api(running, code):
    running.faults(f"vod.*:code-{code}@1")
    reply = running.vod("upload/init", {"originFileName": "a.mp4"})
    assert (reply.status_code, reply.json()["code"]) == (200, code)


def test_a_status_of_the_load_balancer(running):
    running.faults("lbs.get:500@1")
    reply = running.http.get(running.urls["lbs"] + "/lbs?version=1.0")
    assert reply.status_code == 500
    assert reply.json().keys() == {"Code", "Message"}


def test_the_load_balancers_own_faults(running):
    running.faults("lbs.get:colon@1,lbs.get:no-nodes@2")
    url = running.urls["lbs"] + "/lbs?version=1.0"
    assert '"upload"：["http' in running.http.get(url).text
    assert running.http.get(url).json()["upload"] == []


def test_a_status_of_a_download(running):
    running.faults("cdn.get:404@1")
    grant = running.grant("o")
    running.send(grant, b"x")
    assert running.download(grant).status_code == 404
    assert running.download(grant).status_code == 200


@pytest.mark.parametrize(("fault", "body"), [("html", "<html"), ("empty", "")])
def test_a_reply_that_is_no_answer(running, fault, body):
    grant, context = begun(running)
    running.faults(f"nos.put:{fault}@1")
    reply = running.put(grant, bytes(MIB), 3, False, context)
    assert reply.status_code == 200
    assert body in reply.text
    assert (reply.text == "") == (fault == "empty")
    assert running.ask(grant, context).json()["offset"] == 3


@pytest.mark.parametrize("kept", ["stored", "discarded"])
def test_520_on_the_last_chunk(running, kept):
    running.options(on_520=kept)
    grant = running.init()
    running.faults("nos.put:520@1")
    context = running.put(grant, b"abc").json()["context"]
    assert running.put(grant, b"def", 3, True, context).status_code == 520
    assert (grant.object in running.objects()) == (kept == "stored")
    assert running.ask(grant, context).status_code == 404
    assert running.ret("video/query", {"objectNames": [grant.object]})["count"] == 0


def test_short_takes_part_of_a_chunk(running):
    data = bytes(range(200))
    grant, context = begun(running, data[:100])
    running.faults("nos.put:short@1")
    offset = running.put(grant, data[100:], 100, True, context).json()["offset"]
    assert 100 < offset < 200
    assert running.objects() == {}
    assert finished(running, grant, context, data, offset)


def test_a_context_changes(running):
    grant, first = begun(running)
    running.faults("nos.put:context@1")
    second = running.put(grant, b"def", 3, False, first).json()["context"]
    assert second != first
    assert running.ask(grant, first).json()["offset"] == 6
    assert finished(running, grant, second, b"abcdefghi", 6)


@pytest.mark.parametrize("call", ["nos.put", "nos.query"])
def test_a_context_is_lost(running, call):
    grant, context = begun(running)
    running.faults(f"{call}:lost-context@1")
    reply = running.put(grant, b"x", 3, False, context) if call == "nos.put" else running.ask(grant, context)
    assert reply.status_code == 404
    assert running.ask(grant, context).status_code == 404
    running.send(grant, b"again")


def test_no_progress(running):
    grant, context = begun(running)
    running.faults("nos.put:noprogress")
    for _ in range(3):
        assert running.put(grant, b"def", 3, True, context).json()["offset"] == 3
    running.faults("")
    assert finished(running, grant, context, b"abcdef", 3)


@pytest.mark.parametrize("call", ["nos.put", "nos.query"])
def test_the_offset_goes_backwards(running, call):
    data = bytes(range(200))
    grant, context = begun(running, data[:100])
    running.faults(f"{call}:backwards@1")
    reply = running.put(grant, data[100:], 100, True, context) if call == "nos.put" else running.ask(grant, context)
    offset = reply.json()["offset"]
    assert offset < 100
    assert running.ask(grant, context).json()["offset"] == offset
    assert finished(running, grant, context, data, offset)


@pytest.mark.parametrize("call", ["nos.put", "nos.query"])
def test_the_offset_is_beyond_the_end(running, call):
    grant, context = begun(running)
    running.faults(f"{call}:beyond@1")
    reply = running.put(grant, b"def", 3, True, context) if call == "nos.put" else running.ask(grant, context)
    assert reply.json()["offset"] > 6
    assert running.objects() == {}


def test_a_token_counts_as_expired(running):
    grant, context = begun(running)
    running.faults("nos.put:expired@1")
    assert running.put(grant, b"x", 3, True, context).status_code == 403
    assert running.put(grant, b"x", 3, True, context).status_code == 200


def test_a_stall_lasts_until_the_client_leaves(running):
    grant, context = begun(running)
    running.faults("nos.put:stall@1")
    url = running.address(grant, query=f"offset=3&complete=false&version=1.0&context={context}")
    with pytest.raises(httpx.ReadTimeout):
        running.http.post(url, content=bytes(MIB), headers={"x-nos-token": grant.token}, timeout=0.3)
    assert running.put(grant, b"def", 3, False, context).json()["offset"] == 6


def test_slow_and_latency_take_time(running):
    grant, context = begun(running)
    running.faults("nos.put:slow=1M@1,latency=50ms")
    began = time.monotonic()
    running.put(grant, bytes(MIB // 4), 3, False, context)
    assert time.monotonic() - began >= 0.28


def test_a_node_that_is_down_refuses_connections(running):
    grant, context = begun(running)
    running.faults("nos1.*:down")
    with pytest.raises(httpx.ConnectError):
        running.put(grant, b"def", 3, False, context, "nos1")
    assert running.put(grant, b"def", 3, False, context, "nos2").json()["offset"] == 6
    running.faults("nos.*:down")
    with pytest.raises(httpx.ConnectError):
        running.ask(grant, context, "nos2")
    running.faults("")
    assert running.ask(grant, context, "nos1").json()["offset"] == 6


def test_a_node_can_be_down_for_one_call(running):
    grant, _ = begun(running)
    running.faults("nos.put:down@1")
    assert running.put(grant, b"x").status_code == 503


def test_the_control_port_is_never_struck(running):
    running.faults("*:down,latency=10ms")
    assert running.control("GET", "/faults").json() == {"faults": "*:down,latency=10ms"}
    with pytest.raises(httpx.ConnectError):
        running.http.get(running.urls["vod"])


def test_an_error_from_chance_follows_the_seed(start, tmp_path):
    runs = []
    for name in ("one", "two"):
        running = start(tmp_path / name, faults="seed=5,nos.put:500%50")
        runs.append([running.put(running.grant("o"), b"x", complete=True).status_code for _ in range(20)])
    assert runs[0] == runs[1]
    assert set(runs[0]) == {200, 500}
