"""Runs and the doctor on servers that do not do what a run needs."""

import json
import shutil

import pytest

from pipelines.engines import Usage
from pipelines.main import main
from pipelines.manifest import note_refusals
from pipelines.meter import METER, Refusals
from pipelines.shards import read_rows
from tests.engines import spoiled_worlds
from tests.engines.spoiled_worlds import Refused, spoiled

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:crowdkit")

SMALL = ["problems=simulated", "problems.num_problems=2", "actor=plain", "panel=blind", "search.max_searches=1"]


def at(world, *more, engine="vllm"):
    quick = ["engine.limits.max_attempts=1", "engine.limits.max_wait_secs=0.05"]
    return [f"engine={engine}", f"engine.url={world.url}", "engine.model=simulated", *quick, *SMALL, *more]


def run(capsys, world, out, *more, engine="vllm"):
    """Exit code, what is printed, and what is said of what went wrong."""
    code = main(["run", *at(world, *more, engine=engine), f"out={out}"])
    printed = capsys.readouterr()
    return code, printed.out, printed.err.strip()


def doctor(capsys, monkeypatch, *words):
    """Exit code, and the rows that speak of the engine."""
    monkeypatch.setattr("pipelines.doctor._installed", lambda: ())
    code = main(["doctor", *words])
    rows = []
    for line in capsys.readouterr().out.splitlines():
        what, mark, *found = [cell.strip() for cell in line.split("│")[1:4]] or ["", "", ""]
        if mark:
            rows.append([what, mark, *found])
        elif rows and any(found):  # The cells of a row that goes on.
            rows[-1] = [" ".join(filter(None, pair)) for pair in zip(rows[-1], [what, "", *found], strict=True)]
    return code, {what: [mark, found] for what, mark, found in rows if "engine" in what}


def manifest(out):
    return json.loads((out / "run.json").read_text())


def text_of(body):
    return body.get("prompt") or body["messages"][0]["content"]


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (spoiled_worlds.begins_anew, "begins anew instead of going on with a begun answer"),
        (spoiled_worlds.refuses_continuation, "Unrecognized request argument supplied: continue_final_message"),
    ],
    ids=["begins anew", "refuses"],
)
@pytest.mark.parametrize("more", [(), ("dry_run=true",)], ids=["run", "dry run"])
def test_a_service_that_does_not_go_on_is_refused_before_any_work(tmp_path, capsys, spoil, says, more):
    with spoiled(before=spoil) as world:
        code, _, complaint = run(capsys, world, tmp_path / "out", *more, engine="openai")
        assert len(world.bodies) <= 2
    assert (code, complaint.count("\n")) == (2, 0)
    assert complaint.startswith(f"wrongturn: engine: {world.url} ")
    assert says in complaint
    assert not list(tmp_path.rglob("*.parquet"))


def test_the_question_is_in_no_count_and_is_asked_once(tmp_path, capsys):
    out = tmp_path / "out"
    with spoiled() as world:
        assert run(capsys, world, out)[0] == 0
        asked = len(world.bodies)
        assert sum(stage["requests"] for stage in manifest(out)["paid"].values()) == asked - 1
        assert manifest(out)["refused"] == {"requests": 0, "first": ""}
        shutil.rmtree(out / "trees")
        assert run(capsys, world, out)[0] == 0
        assert (len(world.bodies), world.listings) == (asked, 1)


def test_refused_requests_are_counted_over_all_starts_and_told(tmp_path, capsys):
    """One critic's; the shard is finished all the same, and another start asks for nothing of it."""
    out, refused = tmp_path / "out", []

    def refuse(body):
        if "Critic: skeptic" in text_of(body):
            refused.append(body)
            raise Refused(400, "This model's maximum\ncontext length is 8 tokens")

    with spoiled(before=refuse) as world:
        code, printed, _ = run(capsys, world, out)
        assert code == 0
        number, asked = len(refused), len(world.bodies) - 1
        assert number > 1
        (line,) = [line for line in printed.splitlines() if line.startswith("The server refused")]
        assert f"refused {number} of {asked} requests ({number / asked:.1%})" in line
        assert f"the first: {world.url}: HTTP 400" in line
        assert "context length is 8 tokens" in line
        assert "give it a longer context or lower max_tokens" in line
        found = manifest(out)["refused"]
        assert found["requests"] == number
        assert found["first"].startswith(f"{world.url}: HTTP 400")
        METER.refuse("ExpandTrees", "of another run in this process")
        assert run(capsys, world, out)[0] == 0
        assert manifest(out)["refused"] == found


@pytest.mark.parametrize("before", [b"", b"{", b'{"requests": "x"}', None])
def test_what_was_refused_before_is_kept_unless_it_cannot_be_read(tmp_path, before):
    METER.take_refusals()
    logs = tmp_path / "logs"
    assert note_refusals(logs) == Refusals()
    assert not logs.exists()  # There is nothing to be told.
    if before is not None:
        logs.mkdir()
        (logs / "refused.json").write_bytes(before)
    METER.refuse("ExpandTrees", "too long")
    METER.refuse("WriteCritiques", "too long by far")
    assert note_refusals(logs) == Refusals(requests=2, first="too long")
    METER.refuse("ExpandTrees", "another")
    assert note_refusals(logs) == Refusals(requests=3, first="too long")
    assert note_refusals(logs) == Refusals(requests=3, first="too long")
    METER.see(Usage(), {"ExpandTrees/requests refused": 4})  # Workers elsewhere tell numbers alone.
    assert note_refusals(logs) == Refusals(requests=7, first="too long")


def test_an_error_that_came_through_a_stage_is_told_without_where_it_came_from(tmp_path, capsys):
    def refuse(body):
        if not text_of(body).endswith("33 + 5 ="):
            raise Refused(403, "the key has expired")

    with spoiled(before=refuse) as world:
        code, _, complaint = run(capsys, world, tmp_path / "out")
    assert code == 2
    assert "the key has expired" in complaint
    assert complaint.endswith("export it, or name another one") or "give the right key" in complaint
    assert "while running" not in complaint


def test_one_that_refuses_everything_ends_as_before(tmp_path, capsys):
    def refuse(body):
        raise Refused(400, "'max_tokens' is too large")

    with spoiled(before=refuse) as world:
        code, printed, _ = run(capsys, world, tmp_path / "out")
    assert code == 3
    assert "The server refused 2 of 2 requests (100.0%)" in printed
    assert [row["error"] for row in read_rows(tmp_path / "out", "failures")] == ["PromptRefused"] * 2


# The doctor.


def test_doctor_says_in_words_what_a_server_keeps(capsys, monkeypatch):
    with spoiled() as world:
        code, rows = doctor(capsys, monkeypatch, *at(world))
    assert code == 0
    assert rows == {
        "run: engine": [
            "ok",
            "vllm simulated: goes on with a begun answer, goes on behind the end of a line, gives several samples of "
            "one request, ends before a stop string, says where it ran out of tokens, keeps to a JSON Schema, counts "
            "tokens, tells cached tokens, gives log probabilities, repeats an equal seed",
        ]
    }


def test_doctor_names_what_a_run_would_miss_and_what_it_can_do_without(capsys, monkeypatch):
    def silent(_, reply):
        reply["usage"].pop("prompt_tokens_details")

    with spoiled(after=silent) as world:
        code, rows = doctor(capsys, monkeypatch, *at(world, engine="sglang"))
        assert code == 0
        mark, said = rows["engine, cached tokens"]
        assert (mark, said.endswith("with --enable-cache-report")) == ("no", True)
        assert rows["run: engine"][0] == "ok"
    with spoiled(before=spoiled_worlds.begins_anew) as world:
        code, rows = doctor(capsys, monkeypatch, *at(world, engine="openai"))
        assert code == 1
        mark, said = rows["run: engine, continuation"]
        assert (mark, said.startswith("begins anew")) == ("no", True)


def test_doctor_names_the_models_that_are_there(capsys, monkeypatch):
    with spoiled(models={"data": [{"id": "one"}, {"id": "two"}]}) as world:
        code, rows = doctor(capsys, monkeypatch, *at(world))
        assert world.bodies == []
    assert code == 1
    said = f"engine.model: {world.url} has no model 'simulated'; give one of those it has: one, two"
    assert rows == {"run: engine": ["no", said]}


def test_doctor_does_not_wait_for_a_server_that_hangs_and_names_how_long_it_waited(capsys, monkeypatch):
    monkeypatch.setattr("pipelines.doctor._LONGEST_SECS", 0.3)
    with spoiled(before=lambda body: body.update(hang=True)) as world:
        code, rows = doctor(capsys, monkeypatch, *at(world))
    assert code == 1
    mark, said = rows["run: engine"]
    assert mark == "no"
    assert said.endswith("the doctor waits 0.3 s for an answer, a run 300 s (engine.limits.read_timeout_secs)")
