"""Solutions that somebody else wrote, merged into a step trie: a tree of given paths, and of rollouts where they lack.

Where a person says which step is the first wrong one, that step is `flawed`: nothing has to be located. First errors
of other wrong solutions are located by rollouts, as in `mcts.samples`. What pairing asks for besides, a right path that
forks off before the error, and rollouts behind it for the test of the gap, the actor adds: its estimates are direct
rollouts as everywhere, so a given solution enters none.
"""

import asyncio
from collections.abc import Sequence
from typing import Any, Literal

import msgspec

from mcts.answers import Check
from mcts.base import Verifier
from mcts.pairing import first_error_of
from mcts.samples import SampledTree, SampleSettings
from mcts.waves import Plan
from schemas import Problem, Provenance, Record, Rejection, Solution, Tree, digest

GIVEN_REJECTIONS = ("label_contradicted", "labels_disagree")
"""Why a solution is in no tree. `label_contradicted`: its checked answer is not what its file says, or is wrong though
every step is labelled right. `labels_disagree`: of the same steps an earlier solution's label says something else."""

ENGINE = "given"
"""What stands for the engine in the provenance of texts that came from files."""


class GivenSettings(Record, tag_field="kind", tag="given"):
    """Where solutions are read from, and what the actor adds to them.

    Of the search's settings those count that say what a step is, how a path is probed and confirmed, and what a tree
    may cost. `max_located` is the number of wrong solutions a problem to which the actor adds anything, labelled ones
    first.
    """

    path: str | tuple[str, ...]
    """File or files: JSON Lines, JSON or Parquet, see `docs/paths.md`. Several as a list or with commas."""
    domain: Literal["math", "choice", "exact", "code", "command"] = "math"
    """Checker of the answers of problems that come from these files."""
    ask_actor: bool = True
    """Whether the actor rolls out at all. Without, no model is asked for trees, and they hold no estimate."""
    partner_rollouts: int = 8
    """Rollouts from the steps before a first error where no right path forks off there; 0 for none."""
    error_rollouts: int = 8
    """Rollouts behind a first error, for the test of the gap; 0 for none. Probes of an unlabelled solution count."""
    locate: Literal["change_point", "completions"] = "change_point"
    """How first errors that nobody labelled are located, see `mcts.samples.SampleSettings`."""
    completions_per_step: int = 8
    """Likewise."""

    def __post_init__(self) -> None:
        if not self.files or not all(self.files):
            raise ValueError(f"path names no file, got {self.path!r}; give path=FILE or path=[FILE,FILE]")
        for name in ("partner_rollouts", "error_rollouts"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be below 0, got {getattr(self, name)}")
        assert self.locating

    @property
    def files(self) -> tuple[str, ...]:
        """The files one by one."""
        return tuple(self.path.split(",")) if isinstance(self.path, str) else self.path

    @property
    def locating(self) -> SampleSettings:
        """How unlabelled first errors are located. Raises ValueError where it cannot work."""
        return SampleSettings(locate=self.locate, completions_per_step=self.completions_per_step)


class GivenTree(SampledTree):
    """One problem's given solutions. Make one for each tree, await `grow` once."""

    def __init__(
        self,
        given: GivenSettings,
        solutions: Sequence[Solution],
        problem: Problem,
        *,
        verifier: Verifier,
        **search: Any,
    ) -> None:
        """Takes what to add, the solutions, and what `TreeSearch` takes."""
        super().__init__(given.locating, problem, verifier=verifier, **search)
        # Where a file lies is no part of what a tree is; what stands in it is.
        self._source = msgspec.structs.replace(given, path=ENGINE)
        self._given = given
        self._solutions = tuple(solutions)
        self._verifier = verifier
        self._leaves: dict[int, None] = {}
        """Terminals of given solutions, in order."""
        self._said: dict[tuple[str, ...], tuple[bool, str]] = {}
        """What labels say of the last of these steps, whether it is the first wrong one, and whose label it is."""

    async def _phases(self) -> str:
        await self._plant()
        if not any(self._growth.outcome(leaf) in ("correct", "incorrect") for leaf in self._leaves):
            return "nothing_scored"
        if self._given.ask_actor:
            await self._locate()
        return ENGINE

    async def _plant(self) -> None:
        """Checks the solutions' answers and hangs them into the tree, but for those that contradict their label."""
        checks = await asyncio.gather(*(self._verifier("".join(each.steps)) for each in self._solutions))
        for solution, check in zip(self._solutions, checks, strict=True):
            detail, reason = contradiction(solution, check), "label_contradicted"
            if not detail:
                detail, reason = self._disagreement(solution), "labels_disagree"
            if detail:
                self.rejected += (self._rejection(solution, reason, detail),)
            else:
                self._hang(solution, check)

    def _hang(self, solution: Solution, check: Check) -> None:
        growth = self._growth
        leaf = growth.plant(solution.steps)
        growth.nodes[leaf].check = check
        self._leaves[leaf] = None
        self._said |= {steps: (is_first_wrong, solution.id) for steps, is_first_wrong in label_of(solution).items()}
        if solution.first_error is not None and solution.first_error >= 0:
            growth.nodes[growth.path(leaf)[1 + solution.first_error]].flawed = True

    def _disagreement(self, solution: Solution) -> str:
        """How its label goes against an earlier one; empty where it does not."""
        for steps, is_first_wrong in label_of(solution).items():
            earlier, whose = self._said.get(steps, (is_first_wrong, ""))
            if earlier != is_first_wrong:
                verdicts = ("right", "the first wrong one")
                return (
                    f"step {len(steps) - 1} is labelled {verdicts[is_first_wrong]}, but {verdicts[earlier]} after the "
                    f"same steps in {whose}"
                )
        return ""

    def _rejection(self, solution: Solution, reason: str, detail: str) -> Rejection:
        return Rejection(
            stage="ExpandTrees",
            key=solution.id,
            problem_id=self._problem.id,
            reason=reason,
            detail=f"{solution.where}: {detail}",
        )

    async def _locate(self) -> None:
        wrong, growth = self._suspects(), self._growth
        locate = self._complete if self._given.locate == "completions" else self._probe
        await self._all([locate(leaf) for leaf in wrong if not growth.is_flawed(leaf)])
        await self._all([self._prove(leaf) for leaf in wrong])
        await self._all([self._confirm(growth.path(leaf)[1:-1]) for leaf in self._lone()])

    def _suspects(self) -> tuple[int, ...]:
        """Wrong solutions to which something is added: labelled ones first, every error before any twice."""
        growth = self._growth
        wrong = [leaf for leaf in self._leaves if growth.outcome(leaf) == "incorrect"]
        wrong.sort(key=lambda leaf: not growth.is_flawed(leaf))
        flawed = {leaf: next((i for i in growth.path(leaf) if growth.nodes[i].flawed), leaf) for leaf in wrong}
        first_of_error = {flawed[leaf]: leaf for leaf in reversed(wrong)}
        spread = [first_of_error[flawed[leaf]] for leaf in wrong] + wrong
        return tuple(dict.fromkeys(spread))[: self._settings.max_located]

    def _prove(self, leaf: int) -> Plan:
        """Rolls out before a first error where no right path forks off, and behind it; then confirms the right side."""
        growth, given = self._growth, self._given
        posterior = first_error_of(self._freeze(""), leaf, self._settings.change_point)
        path, error = growth.path(leaf), posterior.index(max(posterior))
        before, after = path[error], path[error + 1 : -1]
        wave = []
        if not self._partners(leaf) and growth.nodes[before].sampled < given.partner_rollouts:
            wave.append((before, given.partner_rollouts - growth.nodes[before].sampled))
        behind = sum(growth.nodes[i].sampled for i in after)
        if after and behind < given.error_rollouts:
            wave.append((after[0], given.error_rollouts - behind))
        if wave:
            yield wave
        while any(growth.nodes[i].is_pending for i in (before, *after)):
            yield []  # Another solution with this error has asked.
        yield from self._confirm_partner(leaf)

    def _freeze(self, stopped: str) -> Tree:
        tree = super()._freeze(stopped)
        provenance = written_by(self._solutions, self._provenance if self._growth.rollouts else None)
        return msgspec.structs.replace(tree, id=digest("given", tree.id, self._solutions), provenance=provenance)


def contradiction(solution: Solution, check: Check) -> str:
    """How the checked answer goes against what the file says of the solution; empty where it does not.

    A right answer behind a wrong step contradicts nothing: that is luck. Nor does an answer that nobody could decide.
    """
    if check.outcome == "unscored":
        return ""
    if solution.outcome not in ("unscored", check.outcome):
        return f"the answer is said to be {solution.outcome}, and {check.answer!r} is {check.outcome}"
    if solution.first_error == -1 and check.outcome == "incorrect":
        return f"every step is labelled right, and the answer {check.answer!r} is incorrect"
    return ""


def label_of(solution: Solution) -> dict[tuple[str, ...], bool]:
    """What a label says: for each beginning of the solution whether its last step is the first wrong one.

    Nothing of what comes after a first wrong step, and nothing where there is no label. White space around a step does
    not count.
    """
    error, steps = solution.first_error, tuple(step.strip() for step in solution.steps)
    if error is None:
        return {}
    last = len(steps) if error == -1 else error + 1
    return {steps[:i]: i == error + 1 for i in range(1, last + 1)}


def written_by(solutions: Sequence[Solution], actor: Provenance | None) -> Provenance:
    """Who wrote the texts of a tree: the models that the file names, and the actor where it rolled out.

    Revision, prompt, sampling and seed are the actor's: of the authors nobody knows them.
    """
    authors = sorted({solution.author for solution in solutions if solution.author})
    if actor is None:
        return Provenance(model=", ".join(authors), revision="", engine=ENGINE, prompt_digest="", sampling="", seed=0)
    return msgspec.structs.replace(actor, model=", ".join([*authors, actor.model]), engine=f"{ENGINE}, {actor.engine}")
