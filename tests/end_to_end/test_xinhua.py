"""Pictures for Xinhua: dropped, processed, shown beside the original, and claimed once."""

import threading
from pathlib import Path
from typing import Any

import pytest

from dumbwaiter.model import MIB
from pictures import jpeg
from program import Program, digest

LIMIT = 1024 * 1024


PNG = bytes.fromhex("89504e470d0a1a0a 0000000d 49484452 00000001 00000001 08 00 000000 3a7e9b55") + bytes(40)


@pytest.fixture
def news(program: Program) -> Program:
    """The program with the folder whose files go to Xinhua."""
    program.drop = program.data / "drop/xinhua"
    return program


def entries(program: Program) -> dict[str, dict[str, Any]]:
    return {one["path"]: one for one in program.facts("ls", "xinhua")}


def content(program: Program, entry: dict[str, Any]) -> bytes:
    return (program.data / "objects/demo-c360" / entry["key"]).read_bytes()


def charges(program: Program) -> int:
    return sum("charged" in one for one in program.vendors.log("unwatermark"))


def calls(program: Program, call: str) -> int:
    return len(program.vendors.log(call))


def test_a_picture_is_stored_processed_and_its_result_stands_beside_it(news: Program) -> None:
    picture = jpeg(5000)
    news.start()
    news.write("day/photo.jpg", picture)
    assert news("wait").returncode == 0
    listed = entries(news)
    assert set(listed) == {"day/photo.jpg", "day/photo.watermark.jpg"}
    original, result = listed["day/photo.jpg"], listed["day/photo.watermark.jpg"]
    assert content(news, original) == picture
    assert original["verified"] == "qetag"
    assert original["facts"]["taskStatus"] == "done"
    assert original["facts"]["detectStatus"] == "pass"
    assert original["facts"]["bucket"] == "demo-c360"
    made = content(news, result)
    assert b"watermark" in made
    assert result["size"] == len(made) > len(picture)
    assert news.vendors.http.get(result["url"]).content == made
    assert news.vendors.http.get(original["url"]).content == picture
    assert calls(news, "task") == 1
    assert charges(news) == 0
    assert calls(news, "unwatermark") == 0


def test_what_is_left_of_a_provider_that_was_taken_out_needs_a_person(news: Program) -> None:
    """A file that is there is shown, with what nobody can be asked for any more; another is refused. `wait` ends."""
    news.vendors.faults("xinhua.watermark:stuck,presign.sign:503%100")
    news.start()
    news.write("photo.jpg", jpeg(500))
    (news.folder / "film.mov").write_bytes(b"film")
    put = news.begin("put", "--provider", "recipe", news.folder / "film.mov")
    news.until(lambda: [news.totals()[state] for state in ("pending", "stored")] == [1, 1])
    put.kill()
    put.communicate()
    assert news.stop() == 0
    text = news.config.read_text()
    for name in ("xinhua", "recipe"):
        text = text.replace(f"[provider.{name}", f"[provider.new-{name}").replace(
            f'provider = "{name}"', f'provider = "new-{name}"'
        )
    news.config.write_text(text)
    news.vendors.faults("")
    news.start()
    assert news("wait").returncode == 20
    failed = news.facts("failed")
    assert {one["path"].rpartition("/")[2]: one["error"] for one in failed} == {
        "film.mov": 'no provider named "recipe" is configured',
        "photo.jpg": 'follow_up: no provider named "xinhua" is configured',
    }
    assert [one["path"] for one in news.facts("ls", "keys/xinhua")] == ["photo.jpg"]
    assert news("forget", *(str(one["id"]) for one in failed)).returncode == 0
    assert news("wait").returncode == 0


def test_a_stop_waits_for_the_answer_to_what_may_cost(news: Program) -> None:
    news.vendors.faults("xinhua.task:slow=60")
    news.start()
    news.write("photo.jpg", jpeg(500))
    news.until(lambda: news.vendors.log("task"))
    assert news.stop() == 0
    news.vendors.faults("")
    news.start()
    assert news("wait").returncode == 0
    assert calls(news, "task") == 1
    assert entries(news)["photo.jpg"]["facts"]["taskStatus"] == "done"


def test_many_pictures_ask_for_their_tokens_together(news: Program) -> None:
    for number in range(12):
        news.write(f"{number}.jpg", jpeg(100 + number))
    news.vendors.faults("latency=100ms")
    news.start()
    assert news("wait").returncode == 0
    assert len(entries(news)) == 24
    assert 0 < calls(news, "tokens") < 12
    assert calls(news, "jwt") == 1


def test_what_breaks_a_limit_is_rejected_before_a_byte_is_sent(news: Program) -> None:
    news.write("fits.jpg", jpeg(LIMIT - len(jpeg())))
    news.write("suffix is wrong.png", jpeg())
    news.write("drawing.png", PNG)
    news.write("renamed.jpg", PNG)
    news.write("large.jpg", jpeg(2 * MIB))
    news.write("over.jpg", jpeg(LIMIT - len(jpeg()) + 1))
    news.write("empty.jpg", b"")
    news.start()
    assert news("wait").returncode == 20
    reasons = {one["path"]: one["error"] for one in news.facts("failed")}
    assert reasons == {
        "drawing.png": "drawing.png is image/png; the provider takes image/jpeg",
        "renamed.jpg": "renamed.jpg is image/png; the provider takes image/jpeg",
        "large.jpg": f"large.jpg has {len(jpeg(2 * MIB))} bytes; the provider takes 1048576 at most",
        "over.jpg": "over.jpg has 1048577 bytes; the provider takes 1048576 at most",
        "empty.jpg": "empty.jpg has 0 bytes; the provider wants 1 at least",
    }
    assert len(news.vendors.log("form")) == 2
    assert set(entries(news)) == {
        "fits.jpg",
        "fits.watermark.jpg",
        "suffix is wrong.png",
        "suffix is wrong.watermark.png",
    }


# What may go wrong with any vendor; tests/transports and tests/brokers try it at every step, without a daemon.
ANYWHERE = {
    "cut before the upload": "kodo.form:cut@1",
    "cut within the upload": "kodo.form:cut-within@1",
    "no answer to the upload": "kodo.form:cut-after@1",
    "half an answer to the upload": "kodo.form:cut-reply@1",
    "upload server down": "kodo.form:503@1x2",
    "sign-in cut": "xinhua.jwt:cut@1",
}
FAULTS = {
    "upload token expired": "kodo.form:expired-token@1",
    "wrong region": "kodo.form:region@1",
    "tokens for fewer keys": "xinhua.tokens:fewer@1",
    "task too fast": "xinhua.task:429@1",
    "looks cut": "xinhua.watermark:cut@1x2",
    "a status never heard of": "xinhua.watermark:unheard@1x2",
    "result not there yet": "io.get:404@1",
}


@pytest.mark.parametrize(
    "spec",
    [
        *(pytest.param(one, id=name) for name, one in FAULTS.items()),
        *(pytest.param(one, id=name, marks=pytest.mark.torture) for name, one in ANYWHERE.items()),
    ],
)
def test_faults_lose_nothing_and_process_once(news: Program, spec: str) -> None:
    picture = jpeg(20_000)
    news.vendors.faults(spec)
    news.write("photo.jpg", picture)
    news.start()
    assert news("wait", "--timeout", "40s").returncode == 0
    listed = entries(news)
    assert set(listed) == {"photo.jpg", "photo.watermark.jpg"}
    assert content(news, listed["photo.jpg"]) == picture
    assert listed["photo.jpg"]["facts"]["taskStatus"] == "done"
    assert sum(one["status"] == 200 for one in news.vendors.log("task")) == 1
    assert calls(news, "unwatermark") == 0


def test_the_right_region_is_learned_once(news: Program) -> None:
    news.vendors.faults("up1.form:region")
    news.start()
    for number in range(3):
        news.write(f"{number}.jpg", jpeg(20_000 + number))
        assert news("wait").returncode == 0
    assert news.totals()["done"] == 3
    assert len([one for one in news.vendors.log("form") if one["status"] == 400]) == 1


def test_a_task_that_is_being_made_is_heard_although_somebody_would_forget_its_file(news: Program) -> None:
    news.vendors.faults("xinhua.task:slow=60")
    news.start()
    news.write("photo.jpg", jpeg())
    news.until(lambda: news.vendors.log("task"))
    assert news("forget", "1").returncode == 1
    assert news("wait").returncode == 0
    assert len(news.vendors.log("task")) == 1
    assert entries(news)["photo.jpg"]["facts"]["taskStatus"] == "done"


def test_a_lost_answer_makes_no_second_object(news: Program) -> None:
    """The key is ours alone and cannot be overwritten: what lies there is compared, byte for byte."""
    picture = jpeg(20_000)
    news.vendors.faults("kodo.form:cut-after@1,kodo.form:exists@2x2")
    news.write("photo.jpg", picture)
    news.start()
    assert news("wait").returncode == 0
    assert [digest(picture)] == [one for one in news.objects() if one == digest(picture)]
    assert entries(news)["photo.jpg"]["verified"] == "qetag"


def test_a_lost_answer_makes_no_second_task(news: Program) -> None:
    news.vendors.faults("xinhua.task:cut-after@1")
    news.write("photo.jpg", jpeg())
    news.start()
    assert news("wait").returncode == 0
    facts = entries(news)["photo.jpg"]["facts"]
    assert facts["taskStatus"] == "unknown"
    assert "second task" in facts["taskMessage"]
    assert calls(news, "task") == 1


def test_a_kill_after_the_task_goes_on_with_the_same_task(news: Program) -> None:
    news.vendors.faults("xinhua.watermark:stuck")
    news.write("photo.jpg", jpeg())
    news.start()
    news.until(lambda: calls(news, "watermark") > 1)
    news.kill()
    news.vendors.faults("")
    news.start()
    assert news("wait").returncode == 0
    assert entries(news)["photo.jpg"]["facts"]["taskStatus"] == "done"
    assert calls(news, "task") == 1
    assert len(news.vendors.log("form")) == 1


def test_an_expired_jwt_is_replaced_in_the_middle(news: Program) -> None:
    news.start()
    news.write("one.jpg", jpeg(1))
    assert news("wait").returncode == 0
    news.vendors.advance(21 * 3600)
    news.write("two.jpg", jpeg(2))
    news.until(lambda: news("wait").returncode == 0 and len(entries(news)) == 4)
    assert calls(news, "jwt") == 2


@pytest.mark.parametrize("shift", [-3600, 3600])
def test_a_clock_that_is_wrong_is_corrected_by_the_refusal(news: Program, shift: int) -> None:
    news.vendors.advance(shift)
    news.write("photo.jpg", jpeg())
    news.start()
    assert news("wait").returncode == 0
    assert [one["status"] for one in news.vendors.log("jwt")] == [400, 200]
    assert set(entries(news)) == {"photo.jpg", "photo.watermark.jpg"}


@pytest.mark.parametrize(
    ("switches", "facts", "results"),
    [
        ({"outcome": "failed"}, {"taskStatus": "failed", "taskMessage": "处理失败"}, 0),
        ({"detect": "failed"}, {"taskStatus": "done", "detectStatus": "failed", "detectMessage": "face; flag"}, 1),
        ({"detect": "suspected", "image": "key"}, {"detectStatus": "suspected", "detectMessage": "face; flag"}, 1),
        ({"image": "none"}, {"taskStatus": "done", "detectStatus": "pass"}, 0),
        ({"enveloped": True}, {"taskStatus": "done"}, 1),
    ],
)
def test_what_came_of_a_task_is_a_fact(
    tmp_path: Path, switches: dict[str, Any], facts: dict[str, str], results: int
) -> None:
    with Program(tmp_path, options={"xinhua": switches}) as program:
        program.drop = program.data / "drop/xinhua"
        program.write("photo.jpg", jpeg())
        program.start()
        assert program("wait").returncode == 0
        listed = entries(program)
        assert facts.items() <= listed["photo.jpg"]["facts"].items()
        assert len(listed) == 1 + results


def test_a_task_without_end_is_left_after_a_while(news: Program) -> None:
    text = news.config.read_text()
    news.config.write_text(text.replace('poll = "200ms"', 'poll = "50ms"\npatience = "1s"'))
    news.vendors.faults("xinhua.watermark:stuck")
    news.write("photo.jpg", jpeg())
    news.start()
    assert news("wait").returncode == 0
    facts = entries(news)["photo.jpg"]["facts"]
    assert facts["taskStatus"] == "running"
    assert "not followed further" in facts["taskMessage"]


def test_a_used_up_quota_refuses_the_task_and_keeps_the_picture(news: Program) -> None:
    news.vendors.faults("xinhua.task:quota")
    news.write("photo.jpg", jpeg())
    news.start()
    assert news("wait").returncode == 0
    facts = entries(news)["photo.jpg"]["facts"]
    assert facts["taskStatus"] == "refused"
    told = news("failed")
    assert told.returncode == 20
    assert "dumbwaiter put --again FILE" in told.stderr
    assert "retry" not in told.stderr
    assert "put --again sends the file again" in news("status", "xinhua/photo.jpg").stdout
    news.vendors.faults("")
    assert news("put", "--again", "photo.jpg", folder=news.drop).returncode == 0
    assert entries(news)["photo.jpg"]["facts"]["taskStatus"] == "done"
    assert news("failed").returncode == 0
    assert "quota" in facts["taskMessage"]


def test_a_wrong_key_pauses_the_provider_and_says_which_setting(news: Program) -> None:
    news.config.write_text(news.config.read_text().replace("sandbox-xinhua-secret-0001", "another secret"))
    done = news("put", news.write("photo.jpg", jpeg()))
    assert done.returncode == 21
    assert "secret_key" in done.stderr
    assert "another secret" not in done.stderr


def test_put_waits_for_the_result(news: Program) -> None:
    done = news("put", news.write("photo.jpg", jpeg()))
    assert done.returncode == 0, done.stderr
    assert set(entries(news)) == {"photo.jpg", "photo.watermark.jpg"}


# Claims


@pytest.fixture(params=["with a daemon", "without one"])
def uploaded(request: pytest.FixtureRequest, news: Program) -> Program:
    """A picture that is done."""
    if request.param == "with a daemon":
        news.start()
        news.write("photo.jpg", jpeg())
        assert news("wait").returncode == 0
    else:
        assert news("put", news.write("photo.jpg", jpeg())).returncode == 0
    return news


def test_a_claim_costs_one_use_however_often_it_is_asked_for(uploaded: Program) -> None:
    done = uploaded("claim", "xinhua/photo.jpg", "--yes")
    assert done.returncode == 0, done.stderr
    claimed = entries(uploaded)["photo.claimed.jpg"]
    assert done.stdout.strip() == claimed["url"]
    assert b"unwatermark" in content(uploaded, claimed)
    assert claimed["size"] == len(content(uploaded, claimed))
    again = uploaded("claim", "--yes", uploaded.drop / "photo.jpg")
    assert (again.returncode, again.stdout) == (0, done.stdout)
    assert "claimed before" in again.stderr
    assert calls(uploaded, "unwatermark") == charges(uploaded) == 1


def test_a_claim_is_never_made_without_a_yes(news: Program) -> None:
    assert news("put", news.write("photo.jpg", jpeg())).returncode == 0
    done = news("claim", "xinhua/photo.jpg")
    assert done.returncode == 2
    assert "--yes" in done.stderr
    assert calls(news, "unwatermark") == 0


def test_a_claim_whose_answer_was_lost_is_asked_for_again_and_charged_once(uploaded: Program) -> None:
    uploaded.vendors.faults("xinhua.unwatermark:cut-after@1")
    done = uploaded("claim", "xinhua/photo.jpg", "--yes")
    assert done.returncode == 20
    assert "may have been charged" in done.stderr
    assert "photo.claimed.jpg" not in entries(uploaded)
    uploaded.vendors.faults("")
    again = uploaded("claim", "xinhua/photo.jpg", "--yes")
    assert again.returncode == 0, again.stderr
    assert (calls(uploaded, "unwatermark"), charges(uploaded)) == (2, 1)
    assert again.stdout.strip() == entries(uploaded)["photo.claimed.jpg"]["url"]


def test_a_claim_in_which_the_daemon_was_killed_may_be_made_again(news: Program) -> None:
    news.start()
    news.write("photo.jpg", jpeg())
    assert news("wait").returncode == 0
    news.vendors.faults("xinhua.unwatermark:stall")
    asking = threading.Thread(target=news, args=("claim", "xinhua/photo.jpg", "--yes"))
    asking.start()
    news.until(lambda: calls(news, "unwatermark"))
    news.kill()
    asking.join()
    news.vendors.faults("")
    news.start()
    done = news("claim", "xinhua/photo.jpg", "--yes")
    assert done.returncode == 0, done.stderr
    assert (calls(news, "unwatermark"), charges(news)) == (2, 1)


def test_a_claim_that_was_refused_may_be_made_again(uploaded: Program) -> None:
    uploaded.vendors.faults("xinhua.unwatermark:quota@1")
    done = uploaded("claim", "xinhua/photo.jpg", "--yes")
    assert done.returncode == 1
    assert "nothing was charged" in done.stderr
    assert "quota" in done.stderr
    assert uploaded("claim", "xinhua/photo.jpg", "--yes").returncode == 0
    assert charges(uploaded) == 1


def test_a_file_of_another_vendor_has_nothing_to_claim(program: Program) -> None:
    assert program("put", program.write("clip.mp4", b"x" * 100)).returncode == 0
    done = program("claim", "netease/clip.mp4", "--yes")
    assert done.returncode == 1
    assert "nothing to claim" in done.stderr


def test_no_secret_is_left_behind(news: Program) -> None:
    news.start()
    news.write("photo.jpg", jpeg())
    assert news("wait").returncode == 0
    assert news("claim", "xinhua/photo.jpg", "--yes").returncode == 0
    assert news.stop() == 0
    account = news.vendors.sandbox.accounts["xinhua"]
    for path in [news.log, *(one for one in news.state.rglob("*") if one.is_file())]:
        written = path.read_bytes()
        assert account["secret_key"].encode() not in written, path
        assert b"eyJhbGciOi" not in written, path  # a JWT begins so
        assert b":eyJzY29wZSI6" not in written, path  # an upload token's policy does
