"""Where a journal may be, and what a server must promise. No server is needed."""

import sys
from pathlib import Path

import pytest

from pipelines.config import compose
from pipelines.errors import UserError
from pipelines.journal import Address, Journal, JournalError, is_server, parse_address
from pipelines.journal.promises import Promise, check_promise
from pipelines.output import Output

SECRET = "pa:s/s@w0rd#?"


def address(host: str, **fields) -> Address:
    plain = {"port": 6379, "database": 0, "prefix": "wrongturn", "user": "", "is_encrypted": False}
    return Address(host=host, **plain | fields)


@pytest.mark.parametrize(
    ("url", "parsed", "whole"),
    [
        ("redis://cache", address("cache"), "redis://cache:6379/0/wrongturn"),
        ("redis://10.0.0.1:7000/", address("10.0.0.1", port=7000), "redis://10.0.0.1:7000/0/wrongturn"),
        (
            "redis://a.b-c.example:6379/3",
            address("a.b-c.example", database=3),
            "redis://a.b-c.example:6379/3/wrongturn",
        ),
        ("redis://h/2/run-7.b", address("h", database=2, prefix="run-7.b"), "redis://h:6379/2/run-7.b"),
        (
            "rediss://me@h:6380/0/x",
            address("h", port=6380, prefix="x", user="me", is_encrypted=True),
            "rediss://me@h:6380/0/x",
        ),
        ("redis://[::1]:6379/0", address("::1"), "redis://[::1]:6379/0/wrongturn"),
    ],
)
def test_a_servers_url_has_the_database_and_the_prefix_as_its_path(url, parsed, whole):
    assert parse_address(url) == parsed
    assert str(parsed) == whole
    assert parse_address(whole) == parsed


@pytest.mark.parametrize(
    "url",
    [
        f"redis://:{SECRET}@h/0",
        f"redis://me:{SECRET}@h:6379/0/x",
        "redis://me:w0rd@h/0",
        "redis://:w0rd@h",
        "http://w0rd/0",
        "redis://",
        "redis:///0",
        "redis://h:99999/0",
        "redis://h:w0rd/0",
        "redis://h/zero-w0rd",
        "redis://h/0/a/w0rd",
        "redis://h/0?password=w0rd",
        "redis://h/0#w0rd",
        "redis://[::1/0",
        "redis://a..w0rd/0",
        f"redis://{'w' * 64}0rd/0",
        "redis://h/-1",
    ],
)
def test_what_is_no_such_url_is_refused_without_being_repeated(url):
    assert is_server(url)
    for use in (parse_address, Journal):
        with pytest.raises(ValueError, match=r"^journal: ") as caught:
            use(url)
        assert "\n" not in str(caught.value)
        assert "0rd" not in str(caught.value)


def test_a_password_in_the_url_is_refused_with_the_remedy():
    with pytest.raises(UserError) as caught:
        compose(["journal=redis://me:w0rd@h:6379/0"])
    assert str(caught.value) == (
        "journal: a password stands in the URL, and settings are saved; take it out and set WRONGTURN_REDIS_PASSWORD"
    )


def test_where_the_journal_is_does_not_change_the_data():
    plain, served = compose([]), compose(["journal=redis://h:6379/0/x", "journal_patience_secs=5"])
    assert (served.journal, served.journal_patience_secs) == ("redis://h:6379/0/x", 5)
    assert served.config_digest() == plain.config_digest()
    assert plain.journal_patience_secs == 60
    with pytest.raises(UserError, match="journal_patience_secs must not be below 0, got -1"):
        compose(["journal_patience_secs=-1"])


def test_the_output_folder_leaves_a_servers_url_as_it_is(tmp_path):
    output = Output(str(tmp_path))
    assert output.journal("redis://h:6379/0") == "redis://h:6379/0"
    assert output.journal("") == tmp_path / ".wrongturn" / "journal.sqlite"
    assert output.journal("/a/b.sqlite") == Path("/a/b.sqlite")


def test_without_the_package_it_says_which_to_install(monkeypatch):
    monkeypatch.delitem(sys.modules, "pipelines.journal.redis", raising=False)
    monkeypatch.setitem(sys.modules, "redis", None)
    with pytest.raises(JournalError, match=r"pip install 'wrongturn\[redis\]', or name a file with journal=PATH"):
        Journal("redis://127.0.0.1:1/0")


OLD = {"redis_version": "7.0.15", "aof_enabled": 1, "maxmemory_policy": "noeviction"}
NEW = OLD | {"redis_version": "7.2.4"}
ALWAYS = {"appendfsync": "always", "no-appendfsync-on-rewrite": "no"}
EVERY_SECOND = {"appendfsync": "everysec", "no-appendfsync-on-rewrite": "no"}
PAUSED = {"appendfsync": "always", "no-appendfsync-on-rewrite": "yes"}


@pytest.mark.parametrize(
    ("info", "config", "promise"),
    [
        (OLD, ALWAYS, Promise(waits=False, unchecked="")),
        (NEW, ALWAYS, Promise(waits=False, unchecked="")),
        (NEW, EVERY_SECOND, Promise(waits=True, unchecked="")),
        (NEW | {"redis_version": "10.0"}, EVERY_SECOND, Promise(waits=True, unchecked="")),
        (NEW, PAUSED, Promise(waits=True, unchecked="")),
        (NEW | {"maxmemory_policy": "volatile-lru"}, ALWAYS, Promise(waits=False, unchecked="")),
        (OLD, None, Promise(waits=False, unchecked="appendfsync")),
        (NEW, None, Promise(waits=True, unchecked="")),
        (
            {},
            None,
            Promise(waits=False, unchecked="whether appendonly is on, maxmemory-policy, appendfsync"),
        ),
    ],
)
def test_a_server_that_keeps_what_it_acknowledges_or_can_be_waited_for_will_do(info, config, promise):
    assert check_promise("redis://h", info, config) == promise


@pytest.mark.parametrize(
    ("info", "config", "says"),
    [
        (OLD | {"aof_enabled": 0}, ALWAYS, "keeps nothing on disk (appendonly no); turn it on with CONFIG SET append"),
        (NEW | {"aof_enabled": 0}, None, "keeps nothing on disk (appendonly no)"),
        (OLD | {"maxmemory_policy": "allkeys-lru"}, ALWAYS, "when its memory is full (maxmemory-policy allkeys-lru)"),
        (NEW | {"maxmemory_policy": "allkeys-random"}, None, "CONFIG SET maxmemory-policy noeviction"),
        (OLD, EVERY_SECOND, "(appendfsync everysec); set it with CONFIG SET appendfsync always"),
        (OLD, PAUSED, "(appendfsync always with no-appendfsync-on-rewrite yes)"),
        (NEW, {"appendfsync": "no"}, "(appendfsync no)"),
    ],
)
def test_a_server_that_may_lose_what_it_has_acknowledged_is_refused(info, config, says):
    with pytest.raises(JournalError) as caught:
        check_promise("redis://h", info, config)
    assert says in str(caught.value)
    assert str(caught.value).startswith("the server redis://h ")
