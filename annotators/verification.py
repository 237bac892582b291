"""Tests that a critique must pass before anyone learns from it.

Each is a pure function with a name, which is the reason on the rejection. They stand in the order in which they are
made, from cheap to dear: no second solution is written with a critique that a look at its text rejects.
"""

from collections.abc import Callable, Mapping, Sequence

from annotators.helping import EXACT_TESTS, HELP_REJECTIONS, HELP_TESTS, HelpSettings
from annotators.leaks import find_leak
from annotators.suggestions import suggestion_holds
from annotators.wording import is_readable, near_duplicates, repeated_share, talks_of_reference, visible_length
from schemas import Critique, JudgedUnit, Path, PathPair, Record

_TEXT_TESTS: dict[str, Callable[[Critique, Path, "VerifySettings"], bool]] = {
    "wrong_verdict": lambda critique, path, _: not verdict_agrees(critique, path),
    "wrong_location": lambda critique, path, settings: not location_agrees(critique, path, settings),
    "wrong_suggestion": lambda critique, path, _: not suggestion_holds(critique, path),
    "leaks_answer": lambda critique, path, _: bool(find_leak(critique, path)),
    "talks_of_reference": lambda critique, _path, _: talks_of_reference(critique.text),
    "too_short": lambda critique, _, settings: visible_length(critique.text) < settings.min_chars,
    "too_long": lambda critique, _, settings: len(critique.text) > settings.max_chars,
    "unreadable": lambda critique, _path, _: not is_readable(critique.text),
    "repeats_itself": lambda critique, _, settings: repeated_share(critique.text) > settings.max_repeated_share,
}
"""By name, whether a critique fails."""
_ON_REQUEST = ("wrong_suggestion",)
"""Tests that are made only where they are named: they ask for what others forbid, that the answer is said."""

_PANEL_TESTS = ("unit_dropped", "near_duplicate")
"""`unit_dropped`: the meta-critic threw out a remark of it."""

TESTS = (*_TEXT_TESTS, *_PANEL_TESTS, *HELP_TESTS)
"""Tests that can decide what is kept, in the order in which they are made."""

VERIFY_REJECTIONS = (*_TEXT_TESTS, *_PANEL_TESTS, *HELP_REJECTIONS, "not_measured")
"""Why a critique is rejected, in the order of the tests."""

UNDECIDED = ("not_measured", "help_unscored")
"""Of these, those that say of no test that it failed: nobody knows what would have come of it."""


class VerifySettings(Record):
    """What a critique must show."""

    tests: tuple[str, ...] = tuple(
        name for name in (*_TEXT_TESTS, *_PANEL_TESTS, *EXACT_TESTS) if name not in _ON_REQUEST
    )
    """Names of the tests that decide what is kept; `[]` keeps everything. What a critique's text fails besides is
    written down and decides nothing. Second solutions are written where a named test needs them, for the controls that
    it needs."""
    help: HelpSettings = HelpSettings()
    location_tolerance: int = 0
    """Steps that the named first wrong step may be off the located one."""
    min_location_mass: float = 0.2
    """Posterior probability that makes a named step good enough even beyond the tolerance."""
    min_chars: int = 20
    max_chars: int = 4000
    max_repeated_share: float = 0.5
    """Largest share of a critique's lines that repeat an earlier line."""
    max_likeness: float = 0.9
    """Largest Jaccard index of its runs of three words with those of an earlier critique of the same path; 1 lets all
    but equal texts pass."""
    max_measured: int = 2
    """Critiques of one path whose help is measured at most; the composed one first."""
    measure_rejected: int = 1
    """Failed critiques of a path that has a verified one whose help is measured too, for preference pairs; never one
    that gives the answer away."""
    measure_all: bool = False
    """Whether second solutions are written with every critique, whatever else its text and whatever `tests` need: to
    prefer critiques by what comes of them; never with one that gives the answer away."""
    measure_leaking: bool = False
    """Whether `measure_all` takes those, too, as published filters do: to compare with them, and for nothing else."""

    def __post_init__(self) -> None:
        for name in self.tests:
            if name not in TESTS:
                raise ValueError(f"tests: unknown test {name!r}, expected some of {', '.join(TESTS)}, or [] for none")
        for name in ("min_location_mass", "max_repeated_share", "max_likeness"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must lie in 0..1, got {getattr(self, name)}")
        if self.max_likeness == 0:
            raise ValueError("max_likeness must be above 0: at 0 every text would repeat every other")
        for name in ("location_tolerance", "min_chars", "max_measured", "measure_rejected"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be below 0, got {getattr(self, name)}")

    @property
    def writes_seconds(self) -> bool:
        """Whether second solutions are written with any critique."""
        return self.measure_all or any(name in HELP_TESTS for name in self.tests)

    def decisive(self, failed: Sequence[str]) -> tuple[str, ...]:
        """Those of a critique's failed tests that reject it."""
        return tuple(name for name in failed if name in self.tests)


def verdict_agrees(critique: Critique, path: Path) -> bool:
    """Whether the critique's verdict is the path's Monte-Carlo label."""
    return (critique.verdict == "incorrect") == path.has_error


def location_distance(critique: Critique, path: Path) -> int | None:
    """Steps between the named and the located first wrong step; None where either names none."""
    if critique.first_wrong_step is None or not isinstance(path, PathPair):
        return None
    return abs(critique.first_wrong_step - path.first_error)


def location_mass(critique: Critique, path: Path) -> float | None:
    """Posterior probability of the named step; None where either names none."""
    if critique.first_wrong_step is None or not isinstance(path, PathPair):
        return None
    return path.posterior[critique.first_wrong_step]


def location_agrees(critique: Critique, path: Path, settings: VerifySettings) -> bool:
    """Whether the named step is near the located one, or likely enough; True for paths without an error."""
    distance, mass = location_distance(critique, path), location_mass(critique, path)
    if distance is None or mass is None:
        return True
    return distance <= settings.location_tolerance or mass >= settings.min_location_mass


def text_reasons(
    critiques: Sequence[Critique], path: Path, judged: Sequence[JudgedUnit], settings: VerifySettings
) -> Mapping[str, tuple[str, ...]]:
    """For each critique, by id, the names of the tests that it fails without a single second solution.

    All are made, whichever decide, but for `wrong_suggestion`, which is made where it is named. Near-duplicates are
    looked for among those that nothing before has rejected.

    Args:
      critiques: of one path, in the order in which they are to be kept.
      path: what they criticise.
      judged: what the meta-critic said of the agents' units.
      settings: the bounds.
    """
    reasons = {critique.id: _reasons(critique, path, judged, settings) for critique in critiques}
    passed = [(item.text, item.id) for item in critiques if not settings.decisive(reasons[item.id])]
    for repeated in near_duplicates(passed, settings.max_likeness):
        reasons[repeated] = (*reasons[repeated], "near_duplicate")
    return reasons


def _reasons(critique: Critique, path: Path, judged: Sequence[JudgedUnit], settings: VerifySettings) -> tuple[str, ...]:
    made = (name for name in _TEXT_TESTS if name not in _ON_REQUEST or name in settings.tests)
    failed = [name for name in made if _TEXT_TESTS[name](critique, path, settings)]
    if any(item.agent == critique.agent and item.decision == "drop" for item in judged):
        failed.append("unit_dropped")
    return tuple(failed)
