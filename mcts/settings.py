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


class Bonuses(Record):
    """What is added to a node's score beside its rule, in units of its value, which lies in 0..1. By default nothing.

    SWE-Search (arXiv 2410.20285) and its code have values of -100..100: 200 of them are 1 here.
    """

    depth: float = 0.0
    """alpha of the bonus for nodes near the root, alpha e^(-beta (d - 1)) at depth d."""
    depth_decay: float = 0.8
    """beta of it."""
    depth_penalty: float = 0.0
    """gamma of what is taken off for depth, gamma sqrt(d)."""
    leaf: float = 0.0
    """For a node of high value that was rolled out from and none of whose children was: it has promised something."""
    leaf_above: float = 0.75
    """What counts as high value, 0..1."""
    diversity: float = 0.0
    """Times the part of a step in which it differs from the likest sibling that was tried."""

    def __post_init__(self) -> None:
        for name in ("depth", "depth_decay", "depth_penalty", "leaf", "diversity"):
            if getattr(self, name) < 0:
                raise ValueError(f"bonuses.{name} must not be below 0, got {getattr(self, name)}")
        if not 0 <= self.leaf_above <= 1:
            raise ValueError(f"bonuses.leaf_above must lie in 0..1, got {self.leaf_above}")


class HybridSettings(Record):
    """What a model adds to the search's own estimates. By default nothing, and none is asked."""

    value_weight: float = 0.0
    """Weight of the model's mean value beside the rollouts' in selection, 0..1."""
    sibling_feedback: bool = False
    """Whether rollouts from a node are told what the model said of its siblings."""
    max_siblings: int = 3
    """Siblings that are told of at most, those of highest value."""
    bonuses: Bonuses = Bonuses()
    debaters: int = 0
    """Who argue at the end which solution is right; 0 for no debate."""
    debate_rounds: int = 2
    """Times that each of them speaks, having heard all that was said in the rounds before."""
    candidates: int = 5
    """Solutions that they argue about at most, no two with the same answer."""
    engine: str = ""
    """Name of one of the run's `engines` that values and argues; empty takes the actor's."""
    temperature: float = 0.7
    """Of values and arguments."""
    max_tokens: int = 300
    """Of one of them."""
    value_template: str = "value"
    """Prompt of the values; gap `{sections}`: problem, solution so far."""
    advised_template: str = "advised"
    """Prompt of rollouts that are told of siblings; gap `{sections}`: problem, feedback on siblings."""
    debate_template: str = "debate"
    """Prompt of the arguments; gaps `{debater}` and `{sections}`: problem, candidates, what was said."""

    def __post_init__(self) -> None:
        if not 0 <= self.value_weight <= 1:
            raise ValueError(f"value_weight must lie in 0..1, got {self.value_weight}")
        if self.debaters < 0 or self.temperature < 0:
            raise ValueError(
                f"debaters and temperature must not be below 0, got {self.debaters} and {self.temperature}"
            )
        for name in ("max_siblings", "debate_rounds", "max_tokens"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.candidates < 2:
            raise ValueError(f"candidates must be at least 2 for a debate, got {self.candidates}")

    @property
    def asks_values(self) -> bool:
        """Whether a model says what nodes are worth."""
        return self.value_weight > 0 or self.sibling_feedback

    @property
    def asks_a_model(self) -> bool:
        """Whether a model is asked for anything beside rollouts."""
        return self.asks_values or self.debaters > 0


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
    hybrid: HybridSettings = HybridSettings()
    """What a model adds to selection beside rollouts; nothing unless set."""

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
        if self.rule == "omega" and self.hybrid != HybridSettings():
            raise ValueError(
                "hybrid adds to the scores of nodes, and rule=omega scores rollouts; take greedy_value, uct or puct"
            )
        if self.max_rollouts < self.root_rollouts:
            raise ValueError(
                f"max_rollouts={self.max_rollouts} does not even pay for root_rollouts={self.root_rollouts}"
            )
