"""A folder as people have it: many files, a few that the provider does not take."""

import os

import pytest

from dumbwaiter.model import MIB
from program import Program


@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.torture
def test_of_two_hundred_files_each_gets_a_link_or_a_sentence(program: Program) -> None:
    folder = program.data / "drop/careyshop-aliyun"
    for number in range(210):
        too_large = number % 30 == 7
        content = bytes(2 * MIB + number) if too_large else os.urandom(200 + number)
        (folder / f"photo {number:03}.jpg").write_bytes(content)
    done = program("put", *sorted(folder.iterdir()), patience=150)
    assert done.returncode == 20
    links = done.stdout.splitlines()
    assert len(set(links)) == len(links) == 203
    sentences = done.stderr.splitlines()
    assert len(sentences) == 7
    assert [one for one in sentences if f"the provider takes {2 * MIB} at most" not in one] == []
