"""What a person names to be uploaded: how what cannot be looked at ends the command."""

import errno
import os
from pathlib import Path

import pytest

from configs import FILE, PROVIDER
from dumbwaiter.config.file import parse
from dumbwaiter.errors import Exit, Failure
from dumbwaiter.jobs.by_hand import candidate


@pytest.mark.parametrize(
    ("code", "ends"), [(errno.ENOENT, Exit.USAGE), (errno.EIO, Exit.TEMPORARY), (errno.ESTALE, Exit.TEMPORARY)]
)
def test_a_file_whose_disk_fails_is_worth_another_try(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, ends: Exit
) -> None:
    config = parse(PROVIDER, FILE)

    def fail(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "stat", fail)
    with pytest.raises(Failure, match=os.strerror(code)) as told:
        candidate(config, f"{tmp_path}/film.mov", None, None)
    assert told.value.code == ends
