"""How a tree is grown, and what it may cost."""

from typing import Literal

from mcts.first_error import ChangePoint
from mcts.steps import StepRule
from schemas import Record


class OmegaConstants(Record):
    """Constants of the `omega` rule, see `mcts.selection.omega`."""

    alpha: float = 0.5
    """Weight of a state's value: alpha^(1 - MC)."""
    beta: float = 0.9
    """Weight of a rollout's length: beta^(len / length)."""
    length: float = 500.0
    """L, in tokens."""

    def __post_init__(self) -> None:
        for name in ("alpha", "beta"):
            if not 0 < getattr(self, name) <= 1:
                raise ValueError(f"{name} must lie above 0 and not above 1, got {getattr(self, name)}")
        if self.length <= 0:
            raise ValueError(f"length must be above 0 tokens, got {self.length}")


class SearchSettings(Record):
    """How a tree is grown, and what it may cost."""

    rule: Literal["greedy_value", "uct", "puct", "omega"] = "uct"
    """Selection rule, see `mcts.selection`. `omega` selects rollouts and halves them, the others select nodes."""
    exploration: float = 0.7
    """c of the rule."""
    omega: OmegaConstants = OmegaConstants()
    step_rule: StepRule = "marker"
    step_tokens: int = 30
    """Most tokens of a step where `step_rule` is `tokens`."""
    root_rollouts: int = 8
    """Rollouts from the bare problem at a time, before anything else."""
    max_root_rollouts: int = 24
    """Looks at the bare problem go on up to this many rollouts while all that were scored came out alike and the
    problem is neither easy nor hopeless yet. The first look is made in any case."""
    max_searches: int = 4
    """Searches after that: each selects a node and rolls out from it."""
    rollouts_per_search: int = 4
    """Rollouts from one node at a time."""
    parallel_searches: int = 2
    """Searches in flight in one tree, under virtual loss. Part of what makes the tree."""
    level: float = 0.9
    """Level of every interval that decides something here."""
    easy_above: float = 0.75
    """A problem is easy where the interval of its rate lies above this: no wrong turn worth the rollouts. 8 right ones
    of 8 give an interval of 0.79 to 1."""
    hopeless_below: float = 0.1
    """A problem is hopeless where the interval of its rate lies below this. None of 8 gives 0 to 0.21, none of 24 gives
    0 to 0.08."""
    max_located: int = 2
    """Wrong paths a tree whose first error is looked for."""
    locate_confidence: float = 0.92
    """Posterior probability at which the search for a first error stops."""
    locate_wave: int = 2
    """Rollouts a probe."""
    max_probe_rollouts: int = 60
    """Rollouts spent on one wrong path at most."""
    confirm_rollouts: int = 4
    """Rollouts added at a time where a right path's step is not clearly above the pairing's `hold_above`."""
    max_confirm_rollouts: int = 16
    """Direct rollouts of one step of a right path at most."""
    max_partners: int = 2
    """Right paths that are tried at most as the partner of one wrong path: the next one where one does not hold."""
    max_rollouts: int = 128
    """Rollouts a tree at most, of all kinds; checked before each request."""
    max_completion_tokens: int = 100_000
    """Sampled tokens after which no request is started; what is in flight then still comes."""
    change_point: ChangePoint = ChangePoint()

    def __post_init__(self) -> None:
        for name in (
            "step_tokens",
            "root_rollouts",
            "rollouts_per_search",
            "parallel_searches",
            "locate_wave",
            "confirm_rollouts",
        ):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("level", "locate_confidence"):
            if not 0 < getattr(self, name) < 1:
                raise ValueError(f"{name} must lie between 0 and 1, got {getattr(self, name)}")
        if not 0 <= self.hopeless_below < self.easy_above <= 1:
            raise ValueError(
                f"need 0 <= hopeless_below < easy_above <= 1, got {self.hopeless_below} and {self.easy_above}"
            )
        if self.max_rollouts < self.root_rollouts:
            raise ValueError(
                f"max_rollouts={self.max_rollouts} does not even pay for root_rollouts={self.root_rollouts}"
            )
