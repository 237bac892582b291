"""Where a tree's paths come from: one union of settings, and what grows the trees of each."""

import functools
from collections.abc import Callable, Sequence

from mcts.given import GivenSettings, GivenTree
from mcts.hybrid import Guide
from mcts.injected import InjectedTree, InjectSettings, Rewriter
from mcts.samples import SampledTree, SampleSettings
from mcts.search import GuidedSearch, TreeSearch
from schemas import Record, Solution


class Searched(Record, tag_field="kind", tag="search"):
    """Paths come from a tree search: `search` says how it goes."""


PathSource = Searched | SampleSettings | InjectSettings | GivenSettings
"""Where a tree's paths come from, told by `kind`."""

SEARCHED = Searched()
"""What a stage takes where it is told nothing else."""


def tree_source(
    paths: PathSource,
    rewrite: Rewriter | None = None,
    solutions: Sequence[Solution] = (),
    guide: Guide | None = None,
) -> Callable[..., TreeSearch]:
    """What makes the trees of a source; it takes what `TreeSearch` takes.

    Args:
      paths: the source.
      rewrite: writes steps anew with errors in them, for `injected`.
      solutions: those that came with the problem, for `given`.
      guide: the model beside the actor, for `search` with hybrid values.
    """
    if isinstance(paths, Searched):
        return TreeSearch if guide is None else functools.partial(GuidedSearch, guide)
    if isinstance(paths, SampleSettings):
        return functools.partial(SampledTree, paths)
    if isinstance(paths, GivenSettings):
        return functools.partial(GivenTree, paths, solutions)
    assert rewrite is not None, "paths=injected without anybody who puts errors in"
    return functools.partial(InjectedTree, paths, rewrite)
