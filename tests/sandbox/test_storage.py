import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dumbwaiter_sandbox.storage import Objects, StoredObject, UnstorableError, open_database


@pytest.fixture
def objects(tmp_path):
    os.makedirs(tmp_path / "sandbox")
    database = open_database(str(tmp_path))
    yield Objects(str(tmp_path), database)
    database.close()


def put(objects, tmp_path, key, data=b"x"):
    source = tmp_path / "source"
    source.write_bytes(data)
    objects.publish(str(source), StoredObject("b", key, len(data), "etag", "text/plain", 1.0))


KEYS = st.lists(st.sampled_from(["", ".", "..", "%", "%.", "%..", "%%", "a", "%a", "..."]), min_size=1, max_size=4)


def root_of(objects):
    return os.path.dirname(os.path.dirname(objects.path("b", "x")))


@given(one=KEYS, other=KEYS)
def test_every_key_has_a_path_of_its_own_below_the_bucket(one, other):
    objects = Objects.__new__(Objects)
    objects._root = "/root"
    first, second = "/".join(one), "/".join(other)
    if not first or not second:
        return
    paths = [objects.path("b", key) for key in (first, second)]
    assert (paths[0] == paths[1]) == (first == second)
    assert all(os.path.normpath(path) == path and path.startswith("/root/b/") for path in paths)


@pytest.mark.parametrize(
    ("bucket", "key"), [("", "k"), ("b", ""), ("a/b", "k"), ("b", "x\0"), ("b", "字" * 86), ("b", "\udc80")]
)
def test_a_name_that_no_file_can_have_is_refused(objects, bucket, key):
    with pytest.raises(UnstorableError):
        objects.path(bucket, key)


def test_a_bucket_cannot_climb(objects):
    assert objects.path("..", "k").startswith(root_of(objects) + "/%../")


def test_an_object_that_is_gone_from_disk_is_not_listed(objects, tmp_path):
    put(objects, tmp_path, "one")
    put(objects, tmp_path, "two")
    os.unlink(objects.path("b", "one"))
    assert [stored.key for stored in objects.all()] == ["two"]
    assert objects.find("b", "one") is None


def test_removing_twice_is_no_error(objects, tmp_path):
    put(objects, tmp_path, "one")
    objects.remove("b", "one")
    objects.remove("b", "one")
    assert objects.all() == []


def test_a_folder_in_the_way_of_a_file_is_refused(objects, tmp_path):
    put(objects, tmp_path, "a/b")
    with pytest.raises(UnstorableError):
        put(objects, tmp_path, "a")
