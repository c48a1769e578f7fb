import os
import re
import time
import uuid

import pytest

JSON = "application/json"


def test_each_init_invents_an_object(running):
    grants = [running.init("my clip.MP4") for _ in range(3)]
    assert len({grant.object for grant in grants}) == 3
    for grant in grants:
        stem, suffix = os.path.splitext(grant.object)
        assert uuid.UUID(stem)
        assert suffix == ".MP4"
        assert grant.bucket == "voddumb01"
        assert re.fullmatch(r"UPLOAD [^: ]+:[^: ]+:[^: ]+", grant.token)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({}, 200),
        ({"CheckSum": "0" * 40}, 710),
        ({"CheckSum": None}, 710),
        ({"AppKey": "other"}, 710),
        ({"secret": "other"}, 710),
        ({"CurTime": "1"}, 710),
        ({"CurTime": "now"}, 710),
        ({"Nonce": ""}, 710),
        ({"Nonce": "n" * 128}, 200),
        ({"Nonce": "n" * 129}, 400),
        ({"Content-Type": JSON}, 200),
        ({"Content-Type": None}, 414),
        ({"Content-Type": "text/plain"}, 414),
    ],
)
def test_headers_are_checked(running, changes, code):
    reply = running.vod("upload/init", {"originFileName": "a.mp4"}, **changes)
    assert (reply.status_code, reply.json()["code"]) == (200, code)
    assert ("ret" in reply.json()) == (code == 200)


def test_the_misleading_message(running):
    assert running.vod("upload/init", {}, **{"Content-Type": None}).json()["msg"] == "channelId is empty!"


def test_the_window_moves_with_the_clock(running):
    stale = str(int(running.now()) - 301)
    assert running.vod("video/list", {}, CurTime=stale).json()["code"] == 710
    running.advance(-250)
    assert running.vod("video/list", {}, CurTime=stale).json()["code"] == 200


def test_a_nonce_counts_once_only_by_switch(running):
    for refuse, code in ((False, 200), (True, 200), (True, 710)):
        running.options(refuse_replay=refuse)
        assert running.vod("video/list", {}, Nonce="same").json()["code"] == code


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("upload/init", {}),
        ("upload/init", {"originFileName": "nosuffix"}),
        ("upload/init", {"originFileName": "dot."}),
        ("upload/init", {"originFileName": 3}),
        ("upload/init", {"originFileName": "a.\ud800"}),
        ("upload/init", {"originFileName": "a." + "x" * 300}),
        ("video/query", {"objectNames": ["\ud800"]}),
        ("video/get", {"vid": 10**30}),
        ("video/list", {"currentPage": 10**18, "pageSize": 10**18}),
        ("upload/init", {"originFileName": "a.mp4", "userDefInfo": "x" * 257}),
        ("upload/init", {"originFileName": "a.mp4", "typeId": "one"}),
        ("upload/init", ["a.mp4"]),
        ("upload/setcallback", {}),
        ("video/query", {}),
        ("video/query", {"objectNames": []}),
        ("video/query", {"objectNames": [1]}),
        ("video/get", {}),
        ("video/get", {"vid": 99}),
        ("video/get", {"vid": True}),
        ("video/videoDelete", {"vid": 99}),
        ("video/list", {"currentPage": 0}),
        ("video/list", {"pageSize": 0}),
    ],
)
def test_bad_parameters(running, path, body):
    assert running.vod(path, body).json()["code"] == 400


def test_the_rate_is_limited(running):
    running.options(rate=5)
    began = time.monotonic()
    codes = [running.vod("video/list", {}).json()["code"] for _ in range(30)]
    if time.monotonic() - began < 4:  # a very slow machine stays below the limit
        assert 723 in codes
    assert codes[0] == 200
    running.options(rate=0)
    assert running.vod("video/list", {}).json()["code"] == 200


def test_a_finished_upload_becomes_a_video(running):
    grant = running.init("holiday.mp4", typeId=7)
    unfinished = running.init()
    running.send(grant, b"0123456789")
    names = {"objectNames": [grant.object, unfinished.object, "unknown"]}
    found = running.ret("video/query", names)
    assert found == {"count": 1, "list": [{"objectName": grant.object, "vid": found["list"][0]["vid"]}]}
    video = running.ret("video/get", {"vid": found["list"][0]["vid"]})
    assert (video["videoName"], video["initialSize"], video["status"], video["typeId"]) == (
        "holiday",
        10,
        40,
        7,
    )
    assert video["origUrl"].endswith(f"/{grant.bucket}/{grant.object}")
    for address in (video["origUrl"], video["downloadOrigUrl"]):
        assert running.http.get(address).content == b"0123456789"


def test_a_user_file_name_is_the_videos_name(running):
    grant = running.init("raw.mp4", userFileName="夏天.mp4")
    running.send(grant, b"x")
    assert running.ret("video/list", {})["list"][0]["videoName"] == "夏天"


def test_registration_can_take_time(running):
    running.options(register_delay=30)
    grant = running.init()
    running.send(grant, b"x")
    names = {"objectNames": [grant.object]}
    assert running.ret("video/query", names)["count"] == running.ret("video/list", {})["totalRecords"] == 0
    running.advance(31)
    assert running.ret("video/query", names)["count"] == running.ret("video/list", {})["totalRecords"] == 1


def test_the_list_has_pages(running):
    objects = []
    for _ in range(5):
        grant = running.init()
        running.send(grant, b"x")
        objects.insert(0, grant.object)
    page = running.ret("video/list", {"currentPage": 2, "pageSize": 2, "status": 0, "type": 0})
    assert (page["totalRecords"], page["pageNum"], page["currentPage"], page["pageSize"]) == (5, 3, 2, 2)
    assert [video["origUrl"].rpartition("/")[2] for video in page["list"]] == objects[2:4]
    assert len(running.ret("video/list", {"pageSize": -1})["list"]) == 5
    assert running.ret("video/list", {"status": 30})["totalRecords"] == 0
    assert running.ret("video/list", {"type": 5})["list"] == []


def test_the_same_object_twice_is_one_video(running):
    grant = running.init()
    for data in (b"one", b"longer"):
        running.send(grant, data)
    videos = running.ret("video/list", {})["list"]
    assert [video["initialSize"] for video in videos] == [6]


def test_a_deleted_video_is_gone(running):
    grant = running.init()
    running.send(grant, b"x")
    vid = running.ret("video/list", {})["list"][0]["vid"]
    running.ret("video/videoDelete", {"vid": vid})
    assert running.ret("video/list", {})["totalRecords"] == 0
    assert running.objects() == {}


def test_images_can_have_ids_of_their_own(running):
    running.options(image_ids=True)
    grant = running.init("a.JPG")
    running.send(grant, b"x")
    assert running.ret("video/query", {"objectNames": [grant.object]})["list"][0].keys() == {
        "objectName",
        "imgId",
    }


def test_a_callback_that_fails_leaves_the_object_unknown(running):
    grant = running.init()
    running.faults("vod.callback:500@1")
    assert running.put(grant, b"x", complete=True).status_code == 520
    assert running.ret("video/query", {"objectNames": [grant.object]})["count"] == 0
    assert grant.object in running.objects()
    assert running.put(grant, b"x", complete=True).status_code == 200


def test_signed_downloads_expire(running):
    running.options(signed_downloads=True, download_life=60)
    grant = running.init()
    running.send(grant, b"x")
    vid = running.ret("video/list", {})["list"][0]["vid"]
    address = running.ret("video/get", {"vid": vid})["downloadOrigUrl"]
    assert running.http.get(address).status_code == 200
    assert running.http.get(address.partition("?")[0]).status_code == 403
    assert running.http.get(address.replace("Expires=", "Expires=9")).status_code == 403
    running.advance(61)
    assert running.http.get(address).status_code == 403
    assert running.http.get(running.ret("video/get", {"vid": vid})["downloadOrigUrl"]).status_code == 200


def test_the_load_balancer_names_the_nodes(running):
    for query in ("version=1.0&bucketname=voddumb01", "version=1.0"):
        reply = running.http.get(f"{running.urls['lbs']}/lbs?{query}")
        assert reply.json() == {
            "lbs": running.urls["lbs"] + "/lbs",
            "upload": [running.urls["nos1"], running.urls["nos2"]],
        }
    running.options(node_order=["nos2", "nos1"])
    reply = running.http.get(f"{running.urls['lbs']}/lbs?version=1.0")
    assert reply.json()["upload"][0] == running.urls["nos2"]


def test_the_load_balancer_wants_its_version(running):
    reply = running.http.get(f"{running.urls['lbs']}/lbs?bucketname=b")
    assert reply.status_code == 400
    assert reply.json().keys() == {"Code", "Message"}
