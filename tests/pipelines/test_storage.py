"""Names of folders, and the few things that a path and a store do differently. `memory://` stands for a store."""

import errno
import os
import re
import uuid
from pathlib import Path

import pytest

from pipelines import storage
from pipelines.config import compose
from pipelines.storage import (
    StorageError,
    StoreTrouble,
    check_folder,
    create,
    explained,
    names_in,
    open_folder,
    remove,
    store_errors,
    write_whole,
    writing_whole,
)


@pytest.fixture
def store():
    return open_folder(f"memory://{uuid.uuid4().hex}/out")


@pytest.fixture(params=["path", "store"])
def folder(request, tmp_path):
    if request.param == "path":
        return tmp_path
    return request.getfixturevalue("store")


def test_a_path_is_a_path_and_home_is_understood(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert open_folder("a/b") == Path("a/b")
    assert open_folder("~/a") == tmp_path / "a"


def test_a_url_keeps_both_slashes_and_loses_the_last_one():
    assert str(open_folder("memory://bucket/a/b/")) == "memory://bucket/a/b"
    assert str(open_folder("memory://bucket/a") / "b" / "c") == "memory://bucket/a/b/c"


@pytest.mark.parametrize("url", ["gs://bucket/a b/c=1", "s3://my.bucket-1/x", "gs://bucket", "gs://b/runs/7/"])
def test_hydra_takes_a_url_without_quotes(url):
    assert compose([f"out={url}" if " " not in url else f"out='{url}'"]).out == url


@pytest.mark.parametrize(
    "name", ["gs://bucket/a", "s3://b.c-d/x/y", "gs://bucket", "gs://bucket/", "out", "/a//b", "a*"]
)
def test_a_name_that_can_be_written_to_is_taken(name):
    check_folder(name)


@pytest.mark.parametrize(
    "name",
    [
        "gs://",
        "gs:///a",
        "gs://bucket//a",
        "gs://bucket/a/../b",
        "gs://bucket/./b",
        "gs://bucket/..",
        "gs://bucket/a*",
        "s3://bucket/a[1]",
        "s3://user:secret@bucket/a",
        "s3://bucket/a?versionId=1",
        "gs://bucket/a#1",
        "gs://bucket/a\nb",
    ],
)
def test_a_url_that_means_something_else_is_refused(name):
    with pytest.raises(StorageError, match=r"out: expected (gs|s3)://BUCKET/PREFIX"):
        check_folder(name)


@pytest.mark.parametrize("name", ["http://host/a", "file:///a", "GS://bucket/a", "://a", "az://a/b"])
def test_an_unknown_scheme_is_refused(name):
    with pytest.raises(StorageError, match="out: expected a path, gs://BUCKET/PREFIX or s3://BUCKET/PREFIX, got one"):
        open_folder(name)


def test_a_package_that_is_not_installed_is_named_with_its_extra(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    for url, said in {
        "gs://b/a": "gcsfs: pip install 'wrongturn[gcs]'",
        "s3://b": "s3fs: pip install 'wrongturn[s3]'",
    }.items():
        with pytest.raises(StorageError) as raised:
            open_folder(url)
        assert str(raised.value) == f"out: {url.partition('b')[0]} needs the package {said}"


def test_what_is_written_is_there(folder):
    write_whole(folder / "a", b"1")
    write_whole(folder / "a", b"22")
    with writing_whole(folder / "b") as file:
        file.write(b"333")
    assert (folder / "a").read_bytes() == b"22"
    assert (folder / "b").read_bytes() == b"333"
    assert names_in(folder) == ["a", "b"]


def test_what_was_begun_and_not_ended_leaves_the_old_file(folder):
    write_whole(folder / "a", b"old")

    def begin():
        with writing_whole(folder / "a") as file:
            file.write(b"new")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        begin()
    assert (folder / "a").read_bytes() == b"old"
    assert names_in(folder) == ["a"]


def test_a_file_is_synced_before_it_gets_its_name(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: seen.append(os.listdir(tmp_path)))
    write_whole(tmp_path / "a", b"1")
    ((temporary,),) = seen
    assert re.fullmatch(r"\.a\.\w+\.tmp", temporary)
    assert os.listdir(tmp_path) == ["a"]


def test_two_attempts_of_one_process_at_one_file_leave_each_other_alone(folder):
    with writing_whole(folder / "a") as first:
        first.write(b"1")
        with writing_whole(folder / "a") as second:
            second.write(b"22")
        assert (folder / "a").read_bytes() == b"22"
    assert (folder / "a").read_bytes() == b"1"
    assert names_in(folder) == ["a"]


def test_names_are_those_right_in_the_folder(folder, tmp_path):
    if isinstance(folder, Path):
        (folder / "b").mkdir()
    write_whole(folder / "b" / "c", b"")
    write_whole(folder / "a", b"")
    assert names_in(folder) == ["a", "b"]
    assert names_in(folder / "none") == []


def test_of_two_that_create_a_key_one_succeeds(store):
    assert create(store / "a", b"1")
    assert not create(store / "a", b"2")
    assert (store / "a").read_bytes() == b"1"


def test_a_key_that_is_gone_can_be_taken_away(store):
    write_whole(store / "a", b"1")
    remove([store / "a", store / "b"])
    assert names_in(store) == []


def test_what_a_client_raises_is_an_oserror(monkeypatch):
    monkeypatch.setitem(storage._OTHER_ERRORS, "decimal", ("DivisionByZero",))
    import decimal

    with pytest.raises(StoreTrouble) as raised, store_errors():
        decimal.Decimal(1) / decimal.Decimal(0)
    assert raised.value.strerror == "DivisionByZero: [<class 'decimal.DivisionByZero'>]"
    with pytest.raises(KeyError), store_errors():
        raise KeyError("our own bug")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (FileNotFoundError("The specified bucket does not exist"), "there is no bucket 'b' ("),
        (StoreTrouble(errno.EIO, "HttpError: Not found, 404"), "there is no bucket 'b' ("),
        (PermissionError("Access Denied"), "s3://b/a is not for these credentials, or there are none (Access Denied)"),
        (StoreTrouble(errno.EIO, "NoCredentialsError: none"), "s3://b/a is not for these credentials, or there are no"),
        (OSError("Forbidden: b/wt/o"), "s3://b/a is not for these credentials, or there are none ("),
        (StoreTrouble(errno.EIO, "HttpError: Anonymous caller, 401"), "s3://b/a is not for these credentials"),
        (TimeoutError("slow"), "s3://b/a cannot be used: slow; see that the store can be reached"),
    ],
)
def test_an_error_of_a_store_says_what_to_do(error, said):
    assert explained("s3://b/a", error).startswith(said)
