"""The control socket's clients, and whom they believe."""

import os
import socket
from contextlib import closing
from pathlib import Path

import pytest

from dumbwaiter.client import Connection
from dumbwaiter.errors import Exit, Failure
from dumbwaiter.peers import believed
from stranger import UID, needs_root, stranger


def asked(path: str, state: Path) -> int:
    with closing(Connection(path, str(state), 10.0)) as connection:
        connection.request("GET", "/status")
        return connection.getresponse().status


@needs_root
def test_only_the_owner_of_the_state_folder_is_believed_besides_root_and_oneself(tmp_path: Path) -> None:
    path, state = f"{tmp_path}/control.sock", tmp_path / "state"
    with stranger(path, {}):
        for _ in ("no such folder", "one's own"):
            with pytest.raises(Failure, match=r"somebody else listens at .*control\.sock: ") as raised:
                asked(path, state)
            assert raised.value.code is Exit.USAGE
            state.mkdir(exist_ok=True)
        os.chown(state, UID, UID)
        assert asked(path, state) == 200


@needs_root
def test_oneself_and_root_are_believed_whosever_the_state_folder_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, state = f"{tmp_path}/control.sock", tmp_path / "no such folder"
    ours, theirs = socket.socketpair()
    with stranger(path, {}), ours, theirs:
        monkeypatch.setattr(os, "geteuid", lambda: UID)
        assert asked(path, state) == 200
        assert believed(ours, str(state))  # root is at the other end
