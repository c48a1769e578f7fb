"""Where a secret is, and who may have it."""

import threading
from collections.abc import Iterator
from pathlib import Path

import keyring
import keyring.backend
import pytest
from keyring.errors import KeyringError

from configs import BOTH, FILE, SECRET, changed
from dumbwaiter.config import Hook
from dumbwaiter.config.file import parse
from dumbwaiter.config.options import NetEase
from dumbwaiter.config.values import SecretSource
from dumbwaiter.errors import Exit, Failure
from dumbwaiter.model import Secret


def unread(source: SecretSource) -> str:
    with pytest.raises(Failure) as raised:
        source.read()
    assert raised.value.code is Exit.USAGE
    return str(raised.value)


@pytest.fixture
def secret_file(tmp_path: Path) -> Path:
    path = tmp_path / "secret"
    path.write_text(f"{SECRET}\n")
    path.chmod(0o600)
    return path


def test_a_secret_never_shows_itself() -> None:
    source = SecretSource("literal", SECRET)
    assert repr(source) == repr(source.read()) == str(source.read()) == f"{source.read()}" == "***"
    assert source.read().reveal() == SECRET
    assert SECRET not in repr(parse(BOTH, FILE))


def test_a_secret_is_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VOD", SECRET)
    assert SecretSource("env", "VOD").read() == Secret(SECRET)
    monkeypatch.setenv("VOD", "")
    words = "the environment variable VOD, which should hold a secret, is not set"
    assert unread(SecretSource("env", "VOD")) == words
    monkeypatch.delenv("VOD")
    assert unread(SecretSource("env", "VOD")) == words


def test_a_secret_is_read_from_a_file_without_its_last_newline(
    secret_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert SecretSource("file", str(secret_file)).read() == Secret(SECRET)
    monkeypatch.setenv("HOME", str(secret_file.parent))
    assert SecretSource("file", "~/secret").read() == Secret(SECRET)


@pytest.mark.parametrize("mode", [0o604, 0o640, 0o602, 0o660])
def test_a_secret_file_that_others_can_open_is_refused(secret_file: Path, mode: int) -> None:
    secret_file.chmod(mode)
    assert unread(SecretSource("file", str(secret_file))) == (
        f"the secret file {secret_file} can be read by others: chmod 600 {secret_file}"
    )


def test_a_secret_file_that_holds_none_is_refused(secret_file: Path) -> None:
    secret_file.write_text(" \n")
    assert unread(SecretSource("file", str(secret_file))) == f"the secret file {secret_file} is empty"
    secret_file.write_bytes(b"\xff\xfe")
    assert unread(SecretSource("file", str(secret_file))) == (
        f"the secret file {secret_file} cannot be read: it is no UTF-8 text"
    )
    secret_file.unlink()
    assert unread(SecretSource("file", str(secret_file))) == f"the secret file {secret_file} does not exist"
    assert unread(SecretSource("file", str(secret_file.parent))) == (
        f"the secret file {secret_file.parent} cannot be read: Is a directory"
    )
    assert "cannot be read" in unread(SecretSource("file", "a\0b"))


def test_a_credential_is_read_from_systemds_folder(secret_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Systemd guards that folder; its files may be readable within it."""
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(secret_file.parent))
    secret_file.chmod(0o444)
    assert SecretSource("credential", "secret").read() == Secret(SECRET)
    assert unread(SecretSource("credential", "other")) == (f"the secret file {secret_file.parent}/other does not exist")
    monkeypatch.delenv("CREDENTIALS_DIRECTORY")
    assert unread(SecretSource("credential", "secret")) == (
        'the credential "secret" is handed over by systemd only: start the service, or use { file = "…" } or '
        '{ env = "…" } outside of it'
    )


class Ring(keyring.backend.KeyringBackend):
    """A keyring with one secret in it, or a locked one."""

    priority = 1.0  # type: ignore[assignment]
    locked = False

    def get_password(self, service: str, username: str) -> str | None:
        if self.locked:
            raise KeyringError("it is locked")
        return SECRET if (service, username) == ("vod", "me/at/work") else None

    def set_password(self, service: str, username: str, password: str) -> None:
        raise NotImplementedError

    def delete_password(self, service: str, username: str) -> None:
        raise NotImplementedError


@pytest.fixture
def ring() -> Iterator[Ring]:
    before = keyring.get_keyring()
    keyring.set_keyring(ring := Ring())
    yield ring
    keyring.set_keyring(before)


def test_a_secret_is_read_from_the_keyring(ring: Ring) -> None:
    assert SecretSource("keyring", "vod/me/at/work").read() == Secret(SECRET)
    assert unread(SecretSource("keyring", "vod/you")) == (
        'the keyring holds nothing for "vod/you": keyring set vod you'
    )
    assert unread(SecretSource("keyring", "vod")) == 'keyring = "vod" must read "SERVICE/USER"'
    ring.locked = True
    assert unread(SecretSource("keyring", "vod/you")) == 'the keyring cannot be asked for "vod/you": it is locked'


def test_a_keyring_that_nobody_unlocks_is_told_and_asked_again_later(
    ring: Ring, monkeypatch: pytest.MonkeyPatch
) -> None:
    unlocked = threading.Event()
    monkeypatch.setattr(ring, "get_password", lambda _service, _user: SECRET if unlocked.wait(30.0) else None)
    monkeypatch.setattr("dumbwaiter.config.values.UNLOCKED", 0.01)
    source = SecretSource("keyring", "vod/me")
    source.locate("provider.vod.app_secret", "/")
    try:
        with pytest.raises(Failure) as refused:
            source.read()
    finally:
        unlocked.set()
    assert str(refused.value) == (
        'provider.vod.app_secret the keyring did not answer for "vod/me" within 0.01 seconds: unlock it and try again'
    )
    assert refused.value.code == Exit.TEMPORARY
    monkeypatch.undo()
    monkeypatch.setattr(ring, "get_password", lambda _service, _user: SECRET)
    assert source.read() == Secret(SECRET)


@pytest.mark.parametrize("kind", SecretSource.KINDS)
def test_every_kind_of_secret_can_be_written(kind: str) -> None:
    place = "a.b" if kind == "credential" else "A/B"
    made = parse(changed(f'"{SECRET}"', f'{{ {kind} = "{place}" }}'), FILE).provider["vod"]
    assert isinstance(made, NetEase)
    assert repr(made.app_secret) == f"{kind}:{place}"


@pytest.mark.parametrize("name", ["../bob", "a/b", "..", "a b", "a\\nExecStart=b"])
def test_a_credential_that_would_be_another_file_is_none(name: str) -> None:
    with pytest.raises(Failure, match="is no name of a credential"):
        parse(changed(f'"{SECRET}"', f'{{ credential = "{name}" }}'), FILE)


@pytest.mark.parametrize("words", [["sh", "-c", "cp {path} /x"], ["/bin/bash", "-ec", "echo {name}"]])
def test_no_file_name_becomes_part_of_a_script(words: list[str]) -> None:
    with pytest.raises(
        ValueError, match=r'would be read as part of the script.*write "\$DUMBWAITER_(PATH|NAME)" there'
    ):
        Hook(command=words)
    assert Hook(command=["sh", "-c", 'cp "$1" /x', "sh", "{path}"]).command


def test_a_secret_that_cannot_be_had_is_told_with_its_place(tmp_path: Path) -> None:
    provider = parse(changed(f'"{SECRET}"', '{ file = "vod.key" }'), f"{tmp_path}/config.toml").provider["vod"]
    assert isinstance(provider, NetEase)
    assert unread(provider.app_secret) == (
        f"{tmp_path}/config.toml, line 4: [provider.vod.app_secret] the secret file {tmp_path}/vod.key does not exist"
    )
    (tmp_path / "vod.key").write_text(SECRET)
    (tmp_path / "vod.key").chmod(0o600)
    assert provider.app_secret.read() == Secret(SECRET)
