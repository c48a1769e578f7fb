"""Who else may write a file."""

import grp
import os
import pwd

import pytest

from dumbwaiter.files import writers


def test_a_group_is_private_that_has_the_users_name_and_nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    user = pwd.struct_passwd(("ann", "x", os.geteuid(), 1000, "", "/", "/bin/sh"))
    monkeypatch.setattr(pwd, "getpwuid", lambda _uid: user)
    for name, gid, members, private in (
        ("ann", 1000, [], True),
        ("ann", 1000, ["ann"], True),
        ("ann", 1000, ["bob"], False),
        ("users", 1000, [], False),
        ("ann", 1001, [], False),
    ):
        monkeypatch.setattr(grp, "getgrgid", lambda _gid, one=(name, "x", gid, members): grp.struct_group(one))
        assert writers._is_private(gid, os.geteuid()) is private
