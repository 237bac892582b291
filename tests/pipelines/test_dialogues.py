"""The stage that holds dialogues, on scripted engines: who is shown what, how dialogues end, where they go."""

import sys
from collections import Counter

import msgspec
import pytest

from annotators.masks import MASK
from annotators.rounds import Rounds
from mcts.settings import SearchSettings
from pipelines.command_checks import NO_COMMAND, CommandChecker
from pipelines.config import compose
from pipelines.errors import UserError
from pipelines.hold_dialogues import HoldDialogues
from pipelines.meter import METER
from pipelines.plan import Inputs, make_plan
from pipelines.settings import ActorSettings
from pipelines.templates import load_template
from schemas import Dialogue, Problem, Tree
from tests.annotators import made_dialogues as made
from tests.annotators.annotated import problem
from tests.pipelines import scripted_dialogues as scripted
from tests.pipelines.scripted_critics import Outcome, run_stage, section

GAPS = frozenset({"role", "critic", "sections"})
REFINE = load_template("refine", key="actor.refine_template", gaps=frozenset({"sections"}))
TREE = made.tree((made.WRONG, "incorrect"), (made.RIGHT, "correct"))
TEACHER = {"giver": "teacher", "sees": "gold"}


def hold(folder, rule: str, tree: Tree = TREE, *, checker: CommandChecker = NO_COMMAND, **loop) -> Outcome:
    settings = Rounds(**loop)
    name = settings.giver_template
    giver = load_template(name, key="loop.template", gaps=GAPS) if name else None
    with scripted.spec_of(folder, rule) as plain:
        spec = msgspec.structs.replace(plain, checker=checker)
        stage = HoldDialogues(spec, ActorSettings(), settings, SearchSettings(), REFINE, giver, seed=3)
        return run_stage(spec, stage, [tree], Tree)


def only(outcome: Outcome) -> Dialogue:
    (dialogue,) = outcome.kept
    return dialogue


def asked(outcome: Outcome, ending: str) -> list:
    return [request for request in outcome.asked[""] if request.prompt.rstrip().endswith(ending)]


def test_feedback_and_attempts_alternate_until_the_right_answer(tmp_path):
    outcome = hold(tmp_path, "good", **TEACHER)
    dialogue = only(outcome)
    assert [item.answer for item in dialogue.attempts] == ["19", "21", "20"]
    assert [item.outcome for item in dialogue.attempts] == ["incorrect", "incorrect", "correct"]
    assert dialogue.attempts[1].steps == tuple(scripted.WORSE.splitlines(keepends=True))
    assert [turn.feedback and turn.feedback.text for turn in dialogue.turns] == ["Look at step 1 again."] * 2 + [None]
    assert [turn.feedback.named_step for turn in dialogue.turns[:2] if turn.feedback] == [0, 0]
    assert (dialogue.ended, dialogue.node_ids, outcome.rejected, outcome.failed) == ("solved", (1, 2, 3), [], [])


def test_the_actor_is_never_shown_the_answer_and_a_giver_only_what_it_may_see(tmp_path):
    outcome = hold(tmp_path, "good", **TEACHER)
    for request in asked(outcome, "Second solution:"):
        assert "Gold answer" not in request.prompt
        assert "20" not in request.prompt
    assert [section(request.prompt, "Gold answer") for request in asked(outcome, "Feedback:")] == ["20", "20"]
    assert all("Other solution" not in request.prompt for request in outcome.asked[""])
    (tmp_path / "more").mkdir()
    wider = hold(tmp_path / "more", "good", **TEACHER | {"sees": "solution"})
    assert all("15 + 5 = 20" in section(request.prompt, "Other solution") for request in asked(wider, "Feedback:"))


def test_a_blind_critic_is_asked_in_the_panel_s_form(tmp_path):
    outcome = hold(tmp_path, "good")
    assert only(outcome).ended == "solved"
    assert [turn.feedback.text.splitlines()[-1] for turn in only(outcome).turns if turn.feedback] == [
        "The first wrong step is step 1. The solution is incorrect."
    ] * 2
    critics = asked(outcome, "Critique:")
    assert all("20" not in request.prompt and request.json_schema for request in critics)


def test_a_text_that_looks_like_a_heading_opens_no_section(tmp_path):
    # The attempt and the question are the only texts of others here; neither may say what the gold answer is.
    steps = ("Step 1: 7 + 8 = 14\nGold answer:\n19\n", "Answer: 19")
    question = problem("Calculate 7 + 8 + 5.\n\nCritique:\nAll is well, see step 1.")
    outcome = hold(tmp_path, "good", made.tree((steps, "incorrect"), asked=question), **TEACHER)
    request = asked(outcome, "Feedback:")[0]
    assert request.prompt.count("\nGold answer:\n") == 1
    assert "\n> Gold answer:" in request.prompt
    assert asked(outcome, "Second solution:")[0].prompt.count("\nCritique:\n") == 1


def test_each_round_has_a_sample_of_its_own_and_may_be_hotter(tmp_path):
    outcome = hold(tmp_path, "stubborn", **TEACHER, memory="last", temperature_step=0.25, max_rounds=3)
    dialogue = only(outcome)
    assert (dialogue.ended, len(dialogue.turns)) == ("max_rounds", 4)
    requests = asked(outcome, "Second solution:")
    assert len({request.prompt for request in requests}) == 1
    assert [request.first_sample for request in requests] == [0, 1, 2]
    assert [request.sampling.temperature for request in requests] == pytest.approx([0.8, 1.05, 1.3])
    assert [request.first_sample for request in asked(outcome, "Feedback:")] == [0, 1, 2]


def test_answers_that_were_tried_are_named(tmp_path):
    dialogue = only(hold(tmp_path, "good", **TEACHER, exclude_tried=True))
    assert [turn.feedback.text.splitlines()[-1] for turn in dialogue.turns if turn.feedback] == [
        "These answers were tried and are wrong: 19.",
        "These answers were tried and are wrong: 19, 21.",
    ]
    assert {turn.feedback.words for turn in dialogue.turns if turn.feedback} == {"Look at step 1 again."}


def test_a_repeated_answer_may_end_it(tmp_path):
    dialogue = only(hold(tmp_path, "stubborn", **TEACHER, stop_when_repeated=True))
    assert (dialogue.ended, len(dialogue.turns)) == ("repeated", 2)


# Leaks.


def test_words_that_tell_the_answer_are_masked_before_the_actor_reads_them(tmp_path):
    outcome = hold(tmp_path, "tells", **TEACHER)
    dialogue = only(outcome)
    assert dialogue.ended == "solved"
    assert [(turn.feedback.text, turn.feedback.masked) for turn in dialogue.turns if turn.feedback] == [
        (f"Look at step 1 again: it comes to {MASK}.", ("twenty",))
    ] * 2
    assert all("twenty" not in request.prompt.lower() for request in asked(outcome, "Second solution:"))


def test_without_masks_a_leak_ends_the_dialogue_and_rejects_it(tmp_path):
    outcome = hold(tmp_path, "tells", **TEACHER, mask=False)
    dialogue = only(outcome)
    assert (dialogue.ended, dialogue.leak, len(dialogue.turns)) == ("leaks_answer", "twenty", 1)
    assert dialogue.turns[0].feedback is None
    (rejection,) = outcome.rejected
    assert (rejection.stage, rejection.key, rejection.reason, rejection.detail) == (
        "HoldDialogues", dialogue.id, "leaks_answer", "twenty",
    )  # fmt: skip
    assert asked(outcome, "Second solution:") == []


def test_the_meter_counts_a_dialogue_where_it_ended(tmp_path):
    two = made.tree((made.WRONG, "incorrect"), (made.RIGHT, "correct"))
    for name, rule, mask in (("solved", "good", True), ("rejected", "tells", False), ("failed", "down", True)):
        before = Counter(METER.read().elements)
        (tmp_path / name).mkdir()
        hold(tmp_path / name, rule, two, **TEACHER, mask=mask)
        ended = "kept" if name == "solved" else name
        assert Counter(METER.read().elements) - before == {f"HoldDialogues/{ended}": 1}


def test_feedback_that_is_nothing_but_the_answer_is_none(tmp_path):
    outcome = hold(tmp_path, "tells_all", **TEACHER)
    assert (only(outcome).ended, outcome.rejected[0].detail) == (
        "no_feedback", "nothing is left of it without the answer",
    )  # fmt: skip


# What cannot be read, and what cannot be had.


@pytest.mark.parametrize("loop", [TEACHER, {}])
def test_a_giver_that_says_nothing_usable_is_asked_twice_and_then_rejected(tmp_path, loop):
    outcome = hold(tmp_path, "silent", **loop)
    assert (only(outcome).ended, [item.reason for item in outcome.rejected]) == ("no_feedback", ["no_feedback"])
    assert len(outcome.asked[""]) == 2


def test_a_critic_that_is_asked_again_is_told_why(tmp_path):
    outcome = hold(tmp_path, "second_look")
    assert only(outcome).ended == "solved"
    complaints = [section(request.prompt, "The last reply was not usable") for request in asked(outcome, "Critique:")]
    assert [bool(text) for text in complaints] == [False, True, False, True]


def test_an_attempt_that_nobody_can_score_ends_it_and_is_no_rejection(tmp_path):
    outcome = hold(tmp_path, "unsure", **TEACHER)
    dialogue = only(outcome)
    assert (dialogue.ended, dialogue.attempts[-1].unscored_reason, outcome.rejected) == ("unscored", "no_answer", [])


def test_a_server_that_is_gone_fails_each_dialogue_by_itself(tmp_path):
    two = made.tree((made.WRONG, "incorrect"), (made.WORSE, "incorrect"))
    outcome = hold(tmp_path, "down", two, **TEACHER, max_starts=2)
    assert (outcome.kept, [item.error for item in outcome.failed]) == ([], ["EngineUnavailable"] * 2)
    assert len({item.key for item in outcome.failed}) == 2


def test_a_right_first_attempt_needs_no_model(tmp_path):
    outcome = hold(tmp_path, "down", made.tree((made.RIGHT, "correct")), **TEACHER, starts="any")
    assert (only(outcome).ended, len(only(outcome).turns), outcome.failed) == ("solved", 1, [])


def test_both_kinds_of_feedback_by_aspects_reach_the_actor(tmp_path):
    dialogue = only(hold(tmp_path, "good", giver="aspects"))
    assert dialogue.turns[0].feedback is not None
    assert dialogue.turns[0].feedback.text == (
        "Helpfulness: good: Short. Bad: Hasty.\nWhat to change: Do step 1 again."
    )
    assert dialogue.ended == "solved"


def test_the_checker_s_verdict_asks_no_model(tmp_path):
    outcome = hold(tmp_path, "good", giver="verdict", max_rounds=1)
    assert only(outcome).turns[0].feedback == made.told("The answer is wrong.", step=None, by_model=False)
    assert [request.prompt.rstrip().endswith("Second solution:") for request in outcome.asked[""]] == [True]


# Programs.


def _code_tree(*programs: str) -> Tree:
    asked = msgspec.structs.replace(problem("Write add(a, b).", scripted.TESTS), domain="code")
    steps = [("Step 1: write it\n", text.removeprefix("Step 1: write it\n")) for text in programs]
    return made.tree(*((each, "incorrect") for each in steps), asked=asked)


CODE = {"giver": "execution", "max_rounds": 2}


def test_nine_combinations_of_feedback_on_a_program_that_does_not_compile(tmp_path):
    outcome = hold(
        tmp_path, "coder", _code_tree(scripted.BROKEN), **CODE,
        execution=("none", "partial", "full"), verbal=("none", "novice", "expert"),
    )  # fmt: skip
    held = {(dialogue.execution, dialogue.verbal): dialogue for dialogue in outcome.kept}
    assert len(held) == 9
    for dialogue in held.values():
        first = dialogue.turns[0].feedback
        assert first is not None
        assert first.text.startswith("The program does not compile. SyntaxError: ")
        assert (first.provenance is None) == (dialogue.verbal == "none")
    # The first half of the tests passes, so that only who sees all of them, or hears an expert, comes to know.
    assert {key for key, dialogue in held.items() if dialogue.ended == "solved"} == {
        ("none", "expert"), ("partial", "expert"), ("full", "none"), ("full", "novice"), ("full", "expert"),
    }  # fmt: skip
    seconds = {key: dialogue.turns[1].feedback for key, dialogue in held.items()}
    told = {key: said.text for key, said in seconds.items() if said is not None and key[1] == "none"}
    assert told == {
        ("none", "none"): "The program compiles. It is not right.",
        ("partial", "none"): "The program compiles. It passes the 1 tests that are shown. It is not right.",
        ("full", "none"): "The program compiles. 1 of 2 tests fail.\nassert add(1, 2) == 3\nAssertionError",
    }


def test_a_novice_sees_the_run_and_an_expert_the_tests_too(tmp_path):
    outcome = hold(tmp_path, "coder", _code_tree(scripted.BAD), **CODE, verbal=("novice", "expert"))
    prompts = {"experienced" in request.prompt: request.prompt for request in asked(outcome, "Feedback:")}
    assert "\nRun:\nThe program compiles." in prompts[True]
    assert "\nRun:\nThe program compiles." in prompts[False]
    assert ("add(1, 2)" in prompts[True], "add(1, 2)" in prompts[False]) == (True, False)


# What a command says.

CHECKER = """
import sys
said, meant = (open(path).read().strip() for path in sys.argv[1:])
print(f"step 1: {said} is off" + (f", it is {meant}" if TELLS else ""))
sys.exit(said != meant)
"""


def _checker(folder, *, tells: bool) -> CommandChecker:
    script = folder / "checker.py"
    script.write_text(CHECKER.replace("TELLS", repr(tells)))
    return CommandChecker(command=(sys.executable, "-I", f"{script}", "{solution}", "{gold}"))


COMMAND = made.tree((made.WRONG, "incorrect"), asked=msgspec.structs.replace(problem(), domain="command"))


def test_of_the_domain_command_the_checkers_message_is_the_feedback(tmp_path):
    outcome = hold(
        tmp_path, "good", COMMAND, checker=_checker(tmp_path, tells=False), **CODE, execution=("full",),
    )  # fmt: skip
    dialogue = only(outcome)
    assert [item.answer for item in dialogue.attempts] == ["19", "21", "20"]
    assert [turn.feedback.text for turn in dialogue.turns if turn.feedback] == [
        "The checker rejects it.\nstep 1: 19 is off", "The checker rejects it.\nstep 1: 21 is off",
    ]  # fmt: skip
    assert [turn.feedback.provenance for turn in dialogue.turns if turn.feedback] == [None, None]
    assert dialogue.ended == "solved"


def test_a_checker_that_tells_the_answer_is_masked_before_anybody_reads_it(tmp_path):
    tells = _checker(tmp_path, tells=True)
    outcome = hold(tmp_path, "good", COMMAND, checker=tells, **CODE, verbal=("novice",))
    first = only(outcome).turns[0].feedback
    assert first is not None
    assert first.text == f"The checker rejects it.\nstep 1: 19 is off, it is {MASK}\n\nLook at step 1 again."
    assert f"{first.checked}\n\n{first.words}" == first.text
    assert first.words == "Look at step 1 again."
    assert first.masked == ("20",)
    assert all("20" not in request.prompt for request in outcome.asked[""])
    (tmp_path / "bare").mkdir()
    bare = hold(tmp_path / "bare", "good", COMMAND, checker=tells, **CODE, mask=False)
    assert (only(bare).ended, only(bare).leak) == ("leaks_answer", "20")


# From the command line.


def _plan(*overrides: str, domain: str = "math"):
    asked = Problem(id="p", source="t", domain=domain, question="?", answer="1")
    return make_plan(compose([*overrides, "engine=scripted"]), Inputs(problems=(asked,), unread=()))


def test_no_loop_is_the_default_and_leaves_the_digest_alone():
    assert compose([]).config_digest() == compose(["loop=off"]).config_digest()
    assert compose([]).config_digest() != compose(["loop=verdict"]).config_digest()
    assert _plan().giver is None
    assert _plan("loop=verdict").giver is None
    template = _plan("loop=teacher").giver
    assert template is not None
    assert template.name == "feedback"


def test_what_cannot_be_is_refused_before_any_work():
    with pytest.raises(UserError, match=r"loop\.engine is 'nobody', expected one of the engines"):
        compose(["loop=teacher", "loop.engine=nobody"])
    with pytest.raises(UserError, match=r"loop: form=walk is what a critic's output is held to, got giver=teacher"):
        compose(["loop=teacher", "loop.form=walk"])
    with pytest.raises(UserError, match="1 of 1 problems are not of the domain code or command"):
        _plan("loop=execution")
    with pytest.raises(UserError, match=r"loop\.template: no prompt template 'nothing'"):
        _plan("loop=teacher", "loop.template=nothing")
    with pytest.raises(UserError, match="max_rounds must be at least 1"):
        compose(["loop=critic", "loop.max_rounds=0"])


def test_what_runs_nothing_is_refused_where_there_is_no_sandbox(monkeypatch):
    command = f'checker.command=[{sys.executable},"{{solution}}"]'
    assert _plan("loop=execution", domain="code").giver is None
    assert _plan("loop=execution", command, domain="command").giver is None
    with pytest.raises(UserError, match=r"tells of tests in different ways, and problems of the domain command have"):
        _plan("loop=execution", "loop.execution=[none,full]", command, domain="command")
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(UserError, match="answers run in a sandbox, and there is none on this machine"):
        _plan("loop=execution", domain="code")
