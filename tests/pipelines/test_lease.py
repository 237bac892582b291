"""Who may work on a folder in a store."""

import time
import uuid

import msgspec
import pytest

from pipelines import lease
from pipelines.lease import Held, Lease, LeaseError, holder_of, leased
from pipelines.storage import names_in, open_folder, write_whole


@pytest.fixture
def state():
    return open_folder(f"memory://{uuid.uuid4().hex}/out/.wrongturn")


def held(state, secs=60.0):
    return Held(state.parent, state, secs)


def plant(state, number, *, until, who="process 7 on elsewhere"):
    """A lease of somebody else."""
    other = Lease(holder="other", who=who, until=until)
    write_whole(state / f"lease.{number:06d}.json", msgspec.json.encode(other))


def test_who_holds_it_is_known_until_it_is_given_up(state):
    assert holder_of(state) is None
    mine = held(state)
    before = time.time()
    mine.take()
    assert before + 60 <= holder_of(state).until <= time.time() + 60
    assert names_in(state) == ["lease.000001.json"]
    mine.end()
    assert holder_of(state) is None
    assert names_in(state) == []


def test_a_second_one_is_told_who_and_until_when(state):
    plant(state, 1, until=4102444800.0)
    with pytest.raises(LeaseError) as raised:
        held(state).take()
    assert str(raised.value) == (
        f"out: another run is working on {state.parent} (process 7 on elsewhere, until 2100-01-01 00:00:00 UTC); wait "
        "for it (if it was killed, give the command again after that), or choose another folder with out=DIR"
    )
    assert names_in(state) == ["lease.000001.json"]


def test_one_that_has_run_out_is_taken_over(state):
    plant(state, 4, until=time.time() - 1)
    mine = held(state)
    mine.take()
    assert names_in(state) == ["lease.000005.json"]
    mine.renew()
    assert not mine.is_lost


def test_one_that_nobody_can_read_is_taken_over(state):
    write_whole(state / "lease.000001.json", b"\xff{")
    held(state).take()
    assert names_in(state) == ["lease.000002.json"]


def test_of_two_takers_one_wins(state, monkeypatch):
    """Both have seen that the old one has run out; the other one is quicker."""
    plant(state, 1, until=time.time() - 1)
    mine, create = held(state), lease.create

    def slowly(path, content):
        plant(state, 2, until=4102444800.0)
        return create(path, content)

    monkeypatch.setattr(lease, "create", slowly)
    with pytest.raises(LeaseError, match="process 7 on elsewhere, until 2100"):
        mine.take()


def test_a_store_without_exclusive_creation_has_one_winner_too(state, monkeypatch):
    """The other one writes over what was just created, as the emulator of Cloud Storage lets it."""
    mine, create = held(state), lease.create

    def overtaken(path, content):
        made = create(path, content)
        plant(state, 1, until=4102444800.0)
        return made

    monkeypatch.setattr(lease, "create", overtaken)
    with pytest.raises(LeaseError, match="process 7 on elsewhere, until 2100"):
        mine.take()


def test_a_renewed_one_holds_longer(state):
    mine = held(state, secs=50.0)
    mine.take()
    first = holder_of(state).until
    time.sleep(0.02)
    mine.renew()
    assert first < holder_of(state).until
    assert holder_of(state).until == pytest.approx(time.time() + 50, abs=1)


def test_one_that_was_taken_over_is_lost_and_left_alone(state):
    mine = held(state)
    mine.take()
    plant(state, 2, until=4102444800.0)
    mine.require()  # Nobody has looked yet.
    mine.renew()
    with pytest.raises(
        LeaseError, match=r"was taken over by another run .* \(it is held by process 7 on elsewhere, until"
    ):
        mine.require()
    mine.end()
    assert holder_of(state).holder == "other"


def test_one_that_was_taken_over_and_given_up_again_is_lost(state):
    mine = held(state)
    mine.take()
    (state / "lease.000001.json").unlink()
    mine.renew()
    with pytest.raises(LeaseError, match="its lease is gone"):
        mine.require()


def test_after_a_sleep_it_is_looked_at_before_anything_is_written(state):
    mine = held(state, secs=0.0)
    mine.take()
    plant(state, 2, until=4102444800.0)
    with pytest.raises(LeaseError, match="was taken over"):
        mine.require()


def test_it_is_renewed_while_it_is_held(state, monkeypatch):
    monkeypatch.setattr(lease, "SECS", 0.3)
    with leased(state.parent, state):
        first = holder_of(state).until
        time.sleep(0.5)
        assert holder_of(state).until > first
    assert names_in(state) == []


def test_work_is_interrupted_where_it_is_lost(state, monkeypatch):
    monkeypatch.setattr(lease, "SECS", 0.3)
    began = time.monotonic()

    def work():
        with leased(state.parent, state):
            plant(state, 2, until=4102444800.0)
            time.sleep(20)

    with pytest.raises(LeaseError, match="was taken over"):
        work()
    assert time.monotonic() - began < 10


def test_an_interrupt_by_hand_stays_one_and_gives_it_up(state):
    with pytest.raises(KeyboardInterrupt), leased(state.parent, state):
        raise KeyboardInterrupt
    assert names_in(state) == []


def test_a_store_that_is_away_for_a_while_loses_nothing(state, monkeypatch, caplog):
    monkeypatch.setattr(lease, "SECS", 0.3)
    write, times = lease.write_whole, []

    def away(path, content):
        times.append(time.monotonic())
        if len(times) < 3:
            raise OSError("away")
        write(path, content)

    monkeypatch.setattr(lease, "write_whole", away)
    with leased(state.parent, state) as mine:
        deadline = time.monotonic() + 10
        while len(times) < 4 and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not mine.is_lost
    assert len(times) >= 4
    assert caplog.text.count("away") == 2
