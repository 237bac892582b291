"""VerifyCritiques on a scripted actor: what is asked for, in which looks, and what comes of it."""

import itertools

import pytest

from annotators.critic import number_steps
from annotators.helping import HelpSettings
from annotators.verification import VerifySettings
from pipelines.config import compose
from pipelines.settings import ActorSettings
from pipelines.templates import load_template
from pipelines.verify_critiques import VerifyCritiques
from pipelines.worker import holding
from schemas import Empanelled, Estimate, Panel, Path
from tests.annotators.annotated import alone, critique, pair, problem
from tests.pipelines.scripted_critics import Outcome, run_stage, section, spec_of

REFINE = load_template("refine", key="actor.refine_template", gaps=frozenset({"sections"}))

SURELY = "Step 1 is wrong: this surely helps whoever reads it."
HALF = "Step 1 is wrong: this is half of what there is to say."
USELESS = "Step 1 is wrong: nobody knows what to do about it."
LEAKS = "Step 1 is wrong: it surely has to be 20 in the end, not less."
PLACEBO = "The first step of it has to be looked at by somebody else."
HALF_PLACEBO = PLACEBO + " That is half of it."

_SEEDS = itertools.count(1)
"""A seed a run, so that no run finds its samples in the journal of the one before."""


@pytest.fixture(scope="module")
def spec(tmp_path_factory):
    """One worker for all tests: its checkers start once."""
    with spec_of(tmp_path_factory.mktemp("helped"), actor="helped") as spec, holding(spec):
        yield spec


def of(path: Path, *texts: str, placebo: str = PLACEBO, wrong: int | None = 0) -> Empanelled:
    """A path with a critique by an agent of its own for each text."""
    critiques = tuple(critique(path, agent=f"agent{i}", text=text, wrong=wrong) for i, text in enumerate(texts))
    panel = Panel(
        id=f"panel of {path.id}",
        path_id=path.id,
        problem_id=path.problem.id,
        judged=(),
        votes=(),
        consensus="incorrect",
        consensus_step=0,
        confidence=0.9,
        composed=None,
        candidates=tuple(item.id for item in critiques),
        placebo=placebo,
    )
    return Empanelled(path=path, critiques=critiques, panel=panel)


def verify(spec, *cases: Empanelled, seed: int | None = None, **settings) -> Outcome:
    chosen = VerifySettings(**{"help": HelpSettings(rollouts=8, max_rollouts=32)} | settings)
    stage = VerifyCritiques(spec, ActorSettings(), chosen, REFINE, next(_SEEDS) if seed is None else seed)
    return run_stage(spec, stage, cases, Empanelled)


def asked(outcome: Outcome) -> list[tuple[str, int, int]]:
    """(critique shown, first sample, samples) of each request, sorted."""
    return sorted(
        (section(request.prompt, "Critique"), request.first_sample, request.num_samples)
        for request in outcome.asked[""]
    )


def looks(*texts: str, sizes=((0, 8),)) -> list[tuple[str, int, int]]:
    return sorted((text, *size) for text in texts for size in sizes)


def decisions(outcome: Outcome) -> list[tuple[str, ...]]:
    """Reasons of the verified critiques of the one path, in order."""
    (examined,) = outcome.kept
    return [item.reasons for item in examined.verified]


def test_a_critique_that_its_text_rejects_costs_no_request(spec):
    outcome = verify(spec, of(pair(), LEAKS, "Too short."))
    assert outcome.asked[""] == []
    assert decisions(outcome) == [("leaks_answer",), ("too_short",)]
    for item in outcome.kept[0].verified:
        assert (item.with_critique, item.with_placebo, item.without_critique, item.refinement) == (None, None, None, "")
    assert [(item.key, item.reason) for item in sorted(outcome.rejected, key=lambda item: item.key)] == [
        ("pair1-agent0", "leaks_answer"),
        ("pair1-agent1", "too_short"),
    ]


def test_a_critique_that_beats_both_controls_at_once_is_asked_about_once(spec):
    """8 of 8 against none of 8: one look, three arms."""
    outcome = verify(spec, of(pair(), SURELY))
    assert asked(outcome) == looks("", PLACEBO, SURELY)
    (item,) = outcome.kept[0].verified
    assert (item.decision, item.reasons, outcome.rejected) == ("kept", (), [])
    assert item.with_critique == Estimate(correct=8, scored=8)
    assert item.with_placebo == item.without_critique == Estimate(correct=0, scored=8)
    # One table in C(16, 8) = 12870.
    assert item.p_placebo == item.p_without == pytest.approx(1 / 12870)
    assert (item.refinement, item.refinement_answer, item.wrong_refinement) == ("Answer: 20", "20", "")


def test_the_first_second_solution_of_either_outcome_is_kept(spec):
    """Every other one is right with `half`, none is with `nobody knows`."""
    half, useless = verify(spec, of(pair(), HALF, USELESS)).kept[0].verified
    assert (half.refinement, half.refinement_answer, half.wrong_refinement) == ("Answer: 20", "20", "Answer: 19")
    assert (useless.refinement, useless.refinement_answer, useless.wrong_refinement) == ("", "", "Answer: 19")


def test_an_undecided_critique_is_asked_about_in_a_further_look(spec):
    """8 of 8 against 4 of 8 is p = 70/1820, above 0.05/3; 16 of 16 against 8 of 16 is p = 0.001."""
    outcome = verify(spec, of(pair(), SURELY, placebo=HALF_PLACEBO))
    assert asked(outcome) == looks("", HALF_PLACEBO, SURELY, sizes=[(0, 8), (8, 8)])
    (item,) = outcome.kept[0].verified
    assert item.decision == "kept"
    assert item.with_critique == Estimate(correct=16, scored=16)
    assert item.with_placebo == Estimate(correct=8, scored=16)


def test_a_critique_that_does_no_better_so_far_is_asked_about_no_more(spec):
    lost = verify(spec, of(pair(), HALF, placebo=HALF_PLACEBO))
    assert asked(lost) == looks("", HALF_PLACEBO, HALF)
    assert decisions(lost) == [("no_better_than_placebo",)]


def test_a_smaller_alpha_takes_more_looks(spec):
    """4 of 8 against none of 8 is p = 0.038, 8 of 16 is p = 0.0012, 16 of 32 is p = 3e-7; three looks share alpha."""
    assert asked(verify(spec, of(pair(), HALF))) == looks("", PLACEBO, HALF, sizes=[(0, 8), (8, 8)])
    strict = verify(spec, of(pair(), HALF), help=HelpSettings(rollouts=8, max_rollouts=32, alpha=0.003))
    assert asked(strict) == looks("", PLACEBO, HALF, sizes=[(0, 8), (8, 8), (16, 16)])
    assert decisions(strict) == [()]


def test_looks_are_as_they_are_set(spec):
    settings = {"help": HelpSettings(rollouts=4, max_rollouts=10)}
    outcome = verify(spec, of(pair(), SURELY, placebo=HALF_PLACEBO), **settings)
    # 4 of 4 against 2 of 4, 8 of 8 against 4 of 8 (p = 0.038), 10 of 10 against 5 of 10 (p = 0.016 <= 0.05/3).
    assert asked(outcome) == looks("", HALF_PLACEBO, SURELY, sizes=[(0, 4), (4, 4), (8, 2)])
    assert decisions(outcome) == [()]


def test_controls_are_shared_by_the_critiques_of_a_path(spec):
    outcome = verify(spec, of(pair(), SURELY, USELESS))
    assert asked(outcome) == looks("", PLACEBO, SURELY, USELESS)
    assert decisions(outcome) == [(), ("no_better_than_placebo", "no_better_than_none")]


def test_only_what_is_undecided_goes_on_with_its_controls(spec):
    """The useless critique has lost against both controls after 8, the other one goes on."""
    outcome = verify(spec, of(pair(), USELESS, SURELY, placebo=HALF_PLACEBO))
    assert asked(outcome) == sorted(
        looks("", HALF_PLACEBO, SURELY, sizes=[(0, 8), (8, 8)]) + looks(USELESS, sizes=[(0, 8)])
    )
    assert [item.with_critique.scored for item in outcome.kept[0].verified] == [8, 16]
    assert [item.with_placebo.scored for item in outcome.kept[0].verified] == [8, 16]


def test_paths_do_not_share_their_controls(spec):
    other = pair(problem("Calculate 4 + 9 + 7.", "20", "q2"), name="pair2")
    outcome = verify(spec, of(pair(), SURELY), of(other, SURELY))
    assert asked(outcome) == sorted(looks("", PLACEBO, SURELY) * 2)
    # The same words about two paths are no near-duplicates.
    assert [item.decision for examined in outcome.kept for item in examined.verified] == ["kept", "kept"]


def test_no_more_critiques_are_measured_than_set(spec):
    others = [f"{SURELY} Others said it before, {who} for one." for who in ("Anna", "Bert")]
    outcome = verify(spec, of(pair(), SURELY, *others), max_measured=2)
    assert asked(outcome) == looks("", PLACEBO, SURELY, others[0])
    assert decisions(outcome) == [(), (), ("not_measured",)]


def test_of_what_failed_as_many_are_measured_as_set_if_something_was_kept(spec):
    failing = ["Surely so.", "Half."]
    kept = verify(spec, of(pair(), *failing, SURELY))
    shown = {text for text, _, _ in asked(kept)}
    assert len(shown & set(failing)) == 1
    assert shown - set(failing) == {"", PLACEBO, SURELY}
    assert asked(verify(spec, of(pair(), *failing, SURELY), measure_rejected=0)) == looks("", PLACEBO, SURELY)
    nothing_kept = verify(spec, of(pair(), *failing, USELESS))
    assert {text for text, _, _ in asked(nothing_kept)} == {"", PLACEBO, USELESS}


def test_a_measured_critique_that_its_text_rejects_bears_both_kinds_of_reasons(spec):
    outcome = verify(spec, of(pair(), "Too short.", SURELY))
    assert decisions(outcome) == [("too_short", "no_better_than_placebo", "no_better_than_none"), ()]
    assert outcome.kept[0].verified[0].with_critique == Estimate(correct=0, scored=8)


def test_an_actor_is_never_told_the_answer_by_a_critique_that_failed_for_it(spec):
    outcome = verify(spec, of(pair(), LEAKS, SURELY), measure_rejected=5)
    assert asked(outcome) == looks("", PLACEBO, SURELY)
    assert outcome.kept[0].verified[0].with_critique is None


def test_every_critique_is_measured_where_that_is_set(spec):
    """To compare filters: also those whose text fails, and more than `max_measured`."""
    texts = [LEAKS, "Too short.", SURELY, USELESS]
    outcome = verify(spec, of(pair(), *texts), measure_all=True, measure_leaking=True, max_measured=1)
    assert asked(outcome) == looks("", PLACEBO, *texts)
    assert decisions(outcome) == [
        ("leaks_answer",),
        ("too_short", "no_better_than_placebo", "no_better_than_none"),
        (),
        ("no_better_than_placebo", "no_better_than_none"),
    ]
    assert all(item.with_critique.scored == 8 for item in outcome.kept[0].verified)


def test_no_actor_is_told_the_answer_even_where_every_critique_is_measured(spec):
    outcome = verify(spec, of(pair(), LEAKS, SURELY), measure_all=True)
    assert asked(outcome) == looks("", PLACEBO, SURELY)
    assert outcome.kept[0].verified[0].with_critique is None


# Which tests decide.


def ignored(outcome: Outcome) -> list[tuple[str, ...]]:
    (examined,) = outcome.kept
    return [item.ignored for item in examined.verified]


def test_without_a_test_everything_is_kept_and_nothing_is_paid(spec):
    outcome = verify(spec, of(pair(), LEAKS, "Too short.", USELESS), tests=())
    assert outcome.asked[""] == []
    assert outcome.rejected == []
    assert decisions(outcome) == [(), (), ()]
    assert ignored(outcome) == [("leaks_answer",), ("too_short",), ()]
    assert [item.decision for item in outcome.kept[0].verified] == ["kept"] * 3


def test_the_verdict_alone_decides_where_it_is_named_alone(spec):
    outcome = verify(spec, of(pair(), LEAKS, USELESS), tests=("wrong_verdict",))
    assert (outcome.asked[""], decisions(outcome), ignored(outcome)) == ([], [(), ()], [("leaks_answer",), ()])
    wrong = verify(spec, of(pair(), USELESS, wrong=None), tests=("wrong_verdict",))
    assert (wrong.asked[""], decisions(wrong)) == ([], [("wrong_verdict",)])


def test_a_named_test_of_help_asks_for_its_own_controls_alone(spec):
    outcome = verify(spec, of(pair(), SURELY, USELESS), tests=("no_better_than_none",))
    assert asked(outcome) == looks("", SURELY, USELESS)
    assert decisions(outcome) == [(), ("no_better_than_none",)]
    first, _ = outcome.kept[0].verified
    assert (first.with_placebo, first.p_placebo) == (None, None)
    assert first.p_without == pytest.approx(1 / 12870)


def test_the_soft_filter_needs_no_control_for_its_threshold(spec):
    """Eight of eight are above a half, four of eight are not: `half` fails."""
    once = HelpSettings(rollouts=8, max_rollouts=8, min_rate=0.5)
    outcome = verify(spec, of(pair(), SURELY, HALF), tests=("rate_too_low",), help=once)
    assert asked(outcome) == looks(SURELY, HALF)
    assert decisions(outcome) == [(), ("rate_too_low",)]
    both = verify(spec, of(pair(), SURELY, HALF), tests=("rate_too_low", "rate_not_higher"), help=once)
    assert asked(both) == looks("", SURELY, HALF)


def test_the_soft_filter_does_not_reward_telling_the_answer(spec):
    soft = compose(["verify=soft"]).verify
    outcome = verify(spec, of(pair(), LEAKS, SURELY), tests=soft.tests, help=soft.help)
    assert asked(outcome) == looks("", SURELY)
    assert decisions(outcome) == [("leaks_answer",), ()]


def test_a_test_of_the_other_label_asks_for_nothing(spec):
    outcome = verify(spec, of(pair(), USELESS), tests=("wrong_verdict", "hurts"))
    assert (outcome.asked[""], decisions(outcome)) == ([], [()])


def test_second_solutions_without_a_test_are_written_at_one_look_without_controls(spec):
    outcome = verify(spec, of(pair(), HALF, USELESS), tests=(), measure_all=True, help=HelpSettings(rollouts=6))
    assert asked(outcome) == looks(HALF, USELESS, sizes=[(0, 6)])
    half, _ = outcome.kept[0].verified
    assert (half.decision, half.with_critique, half.without_critique) == ("kept", Estimate(correct=3, scored=6), None)


def test_the_actor_is_shown_problem_first_solution_and_critique(spec):
    outcome = verify(spec, of(pair(), SURELY))
    first = f"Problem:\n{pair().problem.question}\n\nSolution:\n{number_steps(pair().steps)}\n\n"
    prompts = {request.prompt for request in outcome.asked[""]}
    assert prompts == {
        REFINE.text.replace("{sections}", first.rstrip()),
        *(REFINE.text.replace("{sections}", f"{first}Critique:\n{text}") for text in (PLACEBO, SURELY)),
    }


def test_a_second_run_asks_only_for_what_the_first_did_not(spec):
    verify(spec, of(pair(), SURELY), seed=-1)
    again = verify(spec, of(pair(), SURELY, placebo=HALF_PLACEBO), seed=-1)
    assert asked(again) == sorted(
        looks(HALF_PLACEBO, sizes=[(0, 8), (8, 8)]) + looks("", SURELY, sizes=[(8, 8)]),
    )


@pytest.mark.parametrize(("text", "reasons"), [("It all holds, surely.", ()), ("A harmful remark, it is.", ("hurts",))])
def test_a_right_paths_critique_must_not_hurt(tmp_path, text, reasons):
    """8 of 8 in every arm is enough; none of 8 against 8 of 8 hurts."""
    with spec_of(tmp_path, actor="praised") as spec:
        outcome = verify(spec, of(alone(), text, wrong=None))
    assert asked(outcome) == looks("", PLACEBO, text)
    assert decisions(outcome) == [reasons]


def test_an_outage_fails_every_candidate_and_labels_none(tmp_path):
    with spec_of(tmp_path, actor="down") as spec:
        outcome = verify(spec, of(pair(), SURELY, LEAKS))
    assert (outcome.kept, outcome.rejected) == ([], [])
    assert sorted((item.key, item.error, item.attempts) for item in outcome.failed) == [
        ("pair1-agent0", "EngineUnavailable", 3),
        ("pair1-agent1", "EngineUnavailable", 3),
    ]
