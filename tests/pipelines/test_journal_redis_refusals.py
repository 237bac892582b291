"""A Redis server that a journal is refused on, or that refuses it: one line, before any work or without any loss."""

import asyncio
import os
import time
import uuid
from contextlib import closing

import pytest

from pipelines.engines.base import Sample, Usage
from pipelines.journal import PASSWORD_ENV, VERSION, Journal, JournalError
from pipelines.journal.promises import Promise
from pipelines.main import main

# crowd-kit uses what pandas will drop; crowd-kit's own affair.
pytestmark = [pytest.mark.redis, pytest.mark.filterwarnings("ignore::DeprecationWarning:crowdkit")]


def sample(text: str) -> Sample:
    return Sample(text=text, finish="stop", tokens=1)


@pytest.fixture
def url(redis_in_common) -> str:
    """A place of its own on the server that is right."""
    return redis_in_common.url(uuid.uuid4().hex)


def complaint(place: str, **more) -> str:
    with pytest.raises(JournalError) as caught:
        Journal(place, **more).close()
    said = str(caught.value)
    assert "\n" not in said
    assert os.environ[PASSWORD_ENV] not in said
    return said


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"appendonly": "no"}, "keeps nothing on disk (appendonly no)"),
        ({"appendfsync": "no"}, "acknowledges what is not on disk yet (appendfsync no)"),
        (
            {"maxmemory_policy": "allkeys-lru"},
            "throws away keys when its memory is full (maxmemory-policy allkeys-lru)",
        ),
    ],
)
def test_a_server_that_may_lose_answers_is_one_line_before_any_work(start_redis, settings, says, tmp_path, capsys):
    server = start_redis(**settings)
    assert says in complaint(server.url())
    assert main([*SMALL, f"out={tmp_path / 'out'}", f"journal={server.url()}"]) == 2
    said = capsys.readouterr().err.strip()
    assert said.startswith("wrongturn: the server ")
    assert says in said
    assert "\n" not in said
    with server.client() as client:
        assert client.keys("*") == []


SMALL = [
    *("run", "engine=scripted", "problems=sums", "actor=plain", "panel=blind", "panel.meta_template=''"),
    *("search=default", "pairing=default", "verify=default", "search.max_searches=1", "problems.num_problems=6"),
]


def test_everysec_is_enough_where_the_disk_can_be_waited_for(start_redis):
    server = start_redis(appendfsync="everysec")
    with server.client() as client:
        can_wait = tuple(map(int, client.info()["redis_version"].split(".")[:2])) >= (7, 2)
    if not can_wait:
        assert "(appendfsync everysec)" in complaint(server.url())
        return
    with closing(Journal(server.url())) as journal:
        asyncio.run(journal.put("S", {"a": sample("a")}, Usage()))
        assert journal.size() == 1


def test_a_batch_that_is_not_on_the_disk_in_time_is_sent_again_and_counted_once(url, monkeypatch):
    """As Redis 7.2 answers WAITAOF, also where the one at hand is older and does not know it."""
    import redis

    said, execute = [[0, 0], [0, 0], [1, 0]], redis.client.Pipeline.execute
    sent: list[int] = []

    def answered(pipe, *more, **settings):
        words = [command.args if hasattr(command, "args") else command[0] for command in pipe.command_stack]
        answers = execute(pipe, *more, **settings)
        if words[-1][0] == "WAITAOF":
            assert words[-1][1:3] == (1, 0)
            sent.append(len(words))
            answers[-1] = said.pop(0)
        return answers

    monkeypatch.setattr(redis.client.Pipeline, "execute", answered)
    monkeypatch.setattr("pipelines.journal.redis.check_promise", lambda *told: Promise(waits=True, unchecked=""))
    with closing(Journal(url)) as journal:
        asyncio.run(journal.put("S", {"a": sample("a")}, Usage(requests=1)))
        assert sent == [2, 2, 2]  # Script and WAITAOF on the same connection, three times.
        assert journal.ledger() == {"S": Usage(requests=1)}
        assert journal.size() == 1


@pytest.mark.parametrize("password", ["0penSesame", ""])
def test_a_wrong_password_is_one_line_that_does_not_tell_it(url, monkeypatch, password):
    monkeypatch.setenv(PASSWORD_ENV, password)
    with pytest.raises(JournalError) as caught:
        Journal(url)
    said = str(caught.value)
    assert f"does not let us in: {'invalid username-password pair' if password else 'Authentication required'}" in said
    assert "set WRONGTURN_REDIS_PASSWORD to its password" in said
    assert "0penSesame" not in said
    assert "\n" not in said


def test_a_server_that_is_not_there_at_the_start_is_one_line_at_once():
    began = time.monotonic()
    with pytest.raises(JournalError, match=r"the journal's server redis://127\.0\.0\.1:1/0/wrongturn is not there: "):
        Journal("redis://127.0.0.1:1/0", patience_secs=300)
    assert time.monotonic() - began < 5


def test_another_version_is_refused_and_left_as_it_is(redis_in_common, url):
    Journal(url).close()
    prefix = url.rpartition("/")[2]
    with redis_in_common.client() as client:
        client.hset(f"{prefix}:meta", "version", VERSION + 4)
        before = client.hgetall(f"{prefix}:meta")
        assert complaint(url) == (
            f"the journal {url} was written by version {VERSION + 4} of its layout, this is version {VERSION}; use the "
            f"wrongturn that wrote it, or name another prefix with journal={redis_in_common.url('PREFIX')}"
        )
        assert client.hgetall(f"{prefix}:meta") == before


@pytest.mark.parametrize(
    "put",
    [
        lambda client, prefix: client.set(f"{prefix}:samples", "somebody's"),
        lambda client, prefix: client.hset(f"{prefix}:samples", "k", "v"),
        lambda client, prefix: client.rpush(f"{prefix}:ledger", "1"),
        lambda client, prefix: client.hset(f"{prefix}:meta", "title", "a shop"),
        lambda client, prefix: client.set(f"{prefix}:meta", VERSION),
    ],
)
def test_what_is_something_else_is_refused_and_left_as_it_is(redis_in_common, url, put):
    prefix = url.rpartition("/")[2]
    with redis_in_common.client() as client:
        put(client, prefix)
        before = {key: client.dump(key) for key in client.keys(f"{prefix}*")}
        assert f"holds something else under the prefix '{prefix}'; name another prefix with journal=" in complaint(url)
        assert {key: client.dump(key) for key in client.keys(f"{prefix}*")} == before


def test_a_ledger_that_is_no_ledger_is_one_line(redis_in_common, url):
    with closing(Journal(url)) as journal, redis_in_common.client() as client:
        client.hset(f"{url.rpartition('/')[2]}:ledger", "S/requests", "many")
        with pytest.raises(JournalError, match="is damaged: its ledger holds "):
            journal.ledger()
        with pytest.raises(JournalError, match="is damaged: "):
            asyncio.run(journal.put("S", {"a": sample("a")}, Usage(requests=1)))
        assert journal.size() == 0


def test_prefixes_are_journals_of_their_own(redis_in_common):
    names = [uuid.uuid4().hex for _ in range(2)]
    for name in names:
        with closing(Journal(redis_in_common.url(name))) as journal:
            asyncio.run(journal.put("S", {"a": sample(name)}, Usage(requests=1)))
    for name in names:
        with closing(Journal(redis_in_common.url(name))) as journal:
            assert asyncio.run(journal.get(["a"])) == {"a": sample(name)}
            assert journal.ledger() == {"S": Usage(requests=1)}


def test_a_user_who_may_not_ask_for_settings_is_told_what_could_not_be_checked(redis_in_common, url, caplog):
    with redis_in_common.client() as client:
        client.acl_setuser(
            "worker",
            enabled=True,
            passwords=[f"+{os.environ[PASSWORD_ENV]}"],
            keys=["*"],
            commands=["+@all", "-config"],
        )
        can_wait = tuple(map(int, client.info()["redis_version"].split(".")[:2])) >= (7, 2)
    place = url.replace("redis://", "redis://worker@")
    with closing(Journal(place)) as journal:
        asyncio.run(journal.put("S", {"a": sample("a")}, Usage()))
        assert journal.size() == 1
    assert (f"the server {place} does not say appendfsync: " in caplog.text) == (not can_wait)
    assert os.environ[PASSWORD_ENV] not in caplog.text


def test_a_full_memory_is_one_line_and_the_journal_goes_on(start_redis):
    server = start_redis()
    secret = "what a model wrote"
    with closing(Journal(server.url())) as journal, server.client() as client:
        client.config_set("maxmemory", "1mb")
        with pytest.raises(
            JournalError, match=r"cannot use the journal on .*: command not allowed when used memory > 'maxmemory'; put"
        ) as caught:
            asyncio.run(journal.put("S", {"a": sample(secret)}, Usage(requests=1)))
        assert secret not in str(caught.value)
        client.config_set("maxmemory", "0")
        asyncio.run(journal.put("S", {"b": sample("b")}, Usage(requests=1)))
        assert asyncio.run(journal.get(["a", "b"])) == {"b": sample("b")}
        assert journal.ledger() == {"S": Usage(requests=1)}


def test_doctor_says_whether_the_server_will_do(start_redis, url, capsys):
    assert main(["doctor", *SMALL[1:], f"journal={url}"]) == 0
    assert "run: journal" in capsys.readouterr().out
    assert main(["doctor", *SMALL[1:], f"journal={start_redis(appendonly='no').url()}"]) == 1
    assert "keeps nothing on disk" in " ".join(capsys.readouterr().out.replace("│", " ").split())
