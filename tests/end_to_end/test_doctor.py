"""doctor: what is wrong is found, with the remedy; what it packs for others holds no secret."""

import base64
import json
import re
import signal
import zipfile
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote

import pytest

from dumbwaiter.cli.bundle import _Cleaner, _known, _settings
from dumbwaiter.config.file import parse
from dumbwaiter_fs import mount_point
from program import Program


def diagnose(program: Program, *words: str, code: int = 0, **environment: str) -> dict[str, list[dict[str, Any]]]:
    """Returns the findings by what was looked at."""
    done = program("doctor", "--json", *words, environment=environment)
    assert done.returncode == code, done.stdout + done.stderr
    found: dict[str, list[dict[str, Any]]] = {}
    for one in json.loads(done.stdout)["checks"]:
        assert one["level"] == "ok" or one["remedy"], one
        found.setdefault(one["check"], []).append(one)
    return found


def test_what_is_well_is_said_to_be(program: Program) -> None:
    program.start()
    program.write("a/b/c.bin", b"c")
    assert program("wait").returncode == 0
    found = diagnose(program)
    for check in ("configuration", "inotify", "space for state", "state folder", "runtime folder", "journal", "daemon"):
        assert [one["level"] for one in found[check]] == ["ok"], found[check]
    assert found["journal"][0]["says"] == "1 done, 0 to go, 0 need a person"
    assert int(found["inotify"][0]["says"].split()[0]) >= 12  # ten watches, and two folders in one of them
    assert all(one["says"].endswith("answers, its clock agrees") for one in found["provider netease"])
    lines = program("doctor").stdout.splitlines()
    assert all(line.startswith(("ok    ", "warn  ", "      → ")) for line in lines)


def test_a_configuration_that_is_none_is_the_first_thing_said(program: Program) -> None:
    program.config.write_text("[watch.x]\npath = 5\n")
    found = diagnose(program, code=2)
    assert found["configuration"][0]["level"] == "fail"
    assert "[watch.x.path]" in found["configuration"][0]["says"]


def test_what_is_missing_is_named_with_the_remedy(program: Program) -> None:
    program.start()
    assert program.stop() == 0
    program.drop.rmdir()
    program.state.chmod(0o755)
    (program.mount / "occupied").touch()
    program.vendors.advance(-1200)
    found = diagnose(program, code=1)
    assert (
        found["watch netease"][0]["remedy"]
        == f"mount the disk that it is on; where it is on none, mkdir -p {program.drop}"
    )
    assert found["state folder"][0]["remedy"] == f"chmod 700 {program.state}"
    assert found["mount"][0]["remedy"] == "move what lies in it elsewhere, or choose an empty folder"
    assert found["daemon"][0]["level"] == "warn"
    skewed = found["provider netease"][0]
    assert (skewed["level"], "seconds from this machine's" in skewed["says"]) == ("warn", True)


def test_a_folder_that_went_away_is_said_once(program: Program) -> None:
    program.start()
    program.drop.rename(program.folder / "elsewhere")
    program.until(lambda: "away" in {one["state"] for one in program.status()["watches"]})
    (one,) = diagnose(program, code=1)["watch netease"]
    assert one["remedy"].startswith("mount the disk that it is on")


def test_a_provider_that_cannot_be_reached_is_told(program: Program) -> None:
    text = program.config.read_text()
    api = program.vendors.sandbox.urls["vod"]
    program.config.write_text(text.replace(api, "http://127.0.0.1:1"))
    broken = [one for one in diagnose(program, code=1)["provider netease"] if one["level"] == "fail"]
    assert [one["says"] for one in broken] == ["127.0.0.1:1 cannot be reached (connection refused)"]


def test_a_bundle_holds_no_secret(program: Program) -> None:
    planted = "pl4nted/secret+value=="
    text = program.config.read_text()
    secret = program.vendors.sandbox.accounts["netease"]["app_secret"]
    program.config.write_text(text.replace(secret, planted))
    program.start()
    program.write(f"{planted.replace('/', '-')}.bin", b"a")
    outside = program.folder / quote(planted, safe="")  # in a name, as an error of ours might quote it
    outside.write_bytes(b"a")
    assert program("put", "--provider", "netease", outside).returncode == 21
    bundle = program.folder / "bundle.zip"
    bundle.touch(0o644)
    diagnose(program, "--bundle", str(bundle), code=1)  # the vendor knows no such secret
    assert bundle.stat().st_mode & 0o777 == 0o600
    secrets = {planted, quote(planted, safe=""), *accounts(program)}
    with zipfile.ZipFile(bundle) as packed:
        assert {"doctor.json", "config.json", "status.json", "system.txt", "log.txt"} == set(packed.namelist())
        for name in packed.namelist():
            content = packed.read(name).decode()
            assert not [one for one in secrets if one in content], name
        settings = json.loads(packed.read("config.json"))
        assert settings["provider"]["netease"]["app_secret"] == "***"
        assert settings["watch"]["netease"]["path"] == str(program.drop)
        assert json.loads(packed.read("status.json"))["running"]


def test_a_bundle_has_no_webhooks_path_no_argument_of_a_hook_and_only_what_the_file_says(program: Program) -> None:
    text = program.config.read_text()
    hooks = """
on_done = ["notify-send", "--key", "wh1spered", "{name}"]
on_failed = { url = "https://hooks.example:8443/services/wh1spered?key=wh1spered", secret = "sh0uted" }
on_attention = { command = ["curl", "-H", "X-Key: wh1spered", "{event}"], timeout = "5s" }
"""
    program.config.write_text(text.replace("[watch.netease]", f"[watch.netease]{hooks}"))
    bundle = program.folder / "bundle.zip"
    program("doctor", "--bundle", str(bundle))
    with zipfile.ZipFile(bundle) as packed:
        for name in packed.namelist():
            content = packed.read(name).decode()
            assert not [one for one in ("wh1spered", "sh0uted") if one in content], name
        settings = json.loads(packed.read("config.json"))
        assert f"state: {program.state}" in packed.read("system.txt").decode().splitlines()
    watch = settings["watch"]["netease"]
    assert watch["on_done"] == ["notify-send", "***", "***", "{name}"]
    assert watch["on_failed"]["url"] == "https://hooks.example:8443/***"
    assert watch["on_attention"]["command"] == ["curl", "***", "***", "{event}"]
    assert (watch["on_attention"]["timeout"], watch["settle"]) == (5.0, 0.2)
    assert settings["provider"]["netease"]["api"] == program.vendors.sandbox.urls["vod"]
    assert settings["provider"]["recipe"]["reply"]["grants"] == "@"
    assert (settings["limits"]["bandwidth"], settings["mount"]["cache_size"]) == ("off", 10 << 30)


def test_a_journals_server_that_does_not_answer_is_named_with_the_cause_and_a_remedy(program: Program) -> None:
    text = program.config.read_text()
    program.config.write_text(f'journal = "postgresql+psycopg://ann:h@127.0.0.1:1/journal"\n{text}')
    (found,) = diagnose(program, code=1)["journal"]
    assert (found["level"], found["says"][:27]) == ("fail", "the journal cannot be read:")
    assert "refused" in found["says"].lower()
    assert found["remedy"].startswith("see that its server runs")


def test_every_credential_is_looked_for(program: Program) -> None:
    with program.config.open("a") as file:
        file.write('\n[web]\ntoken = { credential = "page" }\n')
    (missing,) = diagnose(program, code=1, HOME=str(program.folder))["secret of the page"]
    assert missing["remedy"] == f"put it into {program.folder}/.config/dumbwaiter/credentials/page and chmod 600 it"


def accounts(program: Program) -> list[str]:
    """Returns every secret in the sandbox's configuration."""
    names = ("secret", "password", "refresh_token", "api_key", "secret_key")
    return [
        value
        for account in program.vendors.sandbox.accounts.values()
        for key, value in account.items()
        if isinstance(value, str) and any(name in key for name in names) and len(value) > 3
    ]


@pytest.mark.parametrize("before", ["", "x", "xy"])
def test_a_secret_is_found_in_every_dress(before: str) -> None:
    secret = 'geh"eim/ß+='
    clean = _Cleaner([secret])
    for dress in (
        secret,
        quote(secret),
        quote(secret, safe=""),
        json.dumps(secret),
        base64.b64encode(f"{before}{secret}:pass".encode()).decode(),
    ):
        assert "***" in clean(f"a {before}{dress} b")
    assert clean("nothing at all") == "nothing at all"
    assert clean("see https://x.example/a?token=1&b=2 now") == "see https://x.example/a?*** now"


def test_a_line_of_an_ignore_file_that_is_no_pattern_is_named_and_stops_nothing(program: Program) -> None:
    (program.drop / ".dumbwaiterignore").write_text("*.log\n[bad\n")
    told = ".dumbwaiterignore, line 2: '[bad' is no pattern, and matches nothing"
    done = program("check")
    assert (done.returncode, done.stderr) == (0, f"dumbwaiter: watch.netease: {program.drop}/{told}\n")
    (found,) = diagnose(program)["watch netease"]
    assert (found["level"], found["says"]) == ("warn", told)
    program.start()
    assert [one["message"] for one in program.status()["watches"] if one["name"] == "netease"] == [told]
    program.write("a.log", b"")
    program.write("a.txt", b"a")
    program.until(lambda: program.stored().keys() == {"a.txt"})


def test_a_watched_disk_that_is_away_is_no_mistake_of_the_configurations(program: Program) -> None:
    program.write("a.txt", b"a")
    assert program("put", program.drop / "a.txt").returncode == 0
    away = program.drop.rename(program.folder / "away")
    done = program("check")
    assert done.returncode == 0, done.stderr
    assert f"watch.netease: {program.drop} is not there, and is waited for" in done.stderr
    away.rename(program.drop)


def test_a_folder_that_was_empty_when_it_was_there_is_waited_for_too(program: Program) -> None:
    program.start()
    program.until(lambda: '"scanned"' in program.log.read_text())
    assert program.stop() == 0
    program.drop.rename(program.folder / "away")
    assert program("check").returncode == 0
    program.start()
    program.until(lambda: {one["name"]: one["state"] for one in program.status()["watches"]}["netease"] == "away")


@pytest.mark.fuse
def test_a_mount_that_does_not_answer_is_none_that_is_well(program: Program) -> None:
    folder, mount = str(program.mount), program.begin("mount")
    try:
        program.until(lambda: mount_point.identity(folder))
        assert diagnose(program)["mount"][0]["level"] == "ok"
        mount.send_signal(signal.SIGSTOP)
        (found,) = diagnose(program, code=1)["mount"]
        assert (found["level"], found["remedy"]) == ("fail", "end it first")
        assert program("check").returncode == 0
    finally:
        mount.kill()
        mount.communicate()
        mount_point.unmount(folder, lazy=True)


def test_a_mount_that_cannot_be_hides_no_rule(program: Program) -> None:
    program.mount.rmdir()
    done = program("check", program.write("a.txt", b"a"))
    assert (done.returncode, "watch netease would upload it" in done.stdout) == (0, True)
    assert f"no mount as it is: {program.config}, line " in done.stderr
    assert "the folder is not there: mkdir -p" in done.stderr


def test_a_secret_that_only_a_service_gets_hides_no_rule(program: Program) -> None:
    text = re.sub(r"app_secret = .*", 'app_secret = { credential = "vod" }', program.config.read_text(), count=1)
    program.config.write_text(text)
    done = program("check", program.write("a.txt", b"a"))
    assert done.returncode == 0, done.stderr
    assert "watch netease would upload it under a name that cannot be told" in done.stdout
    assert "not looked at, as systemd alone hands it over: the secret of netease\n" in done.stderr
    assert program("check", "--online").returncode == 2


def test_a_bundle_holds_no_password_of_the_journal() -> None:
    url = "postgresql+psycopg://ann:7/whispered@db/journal?application_name=a@b&password=hushed"
    url += "&sslpassword=muttered&sslkey=/home/ann/key.pem&oauth_client_secret=m0uthed&passfile=/home/ann/.pgpass"
    session: Any = SimpleNamespace(config=parse(f'journal = "{url}"\n', "config.toml"))
    told = json.dumps(_settings(session))
    assert "postgresql+psycopg://ann:***@db/journal" in told
    assert "sslkey=%2Fhome%2Fann%2Fkey.pem" in told
    assert "passfile=%2Fhome%2Fann%2F.pgpass" in told
    assert not [word for word in ("whispered", "hushed", "muttered", "m0uthed") if word in told]
    assert {"7/whispered", "hushed", "muttered", "m0uthed"} <= {*_known(session)}
