"""How a step is asked for that holds an error: what each way of `paths=injected` shows to whom."""

import msgspec

from annotators.critic import layout
from annotators.units import ERROR_TYPES
from mcts.injected import How, InjectSettings, Place
from mcts.sources import PathSource
from pipelines.engines.base import Request
from pipelines.settings import ActorSettings
from pipelines.templates import load_template
from schemas import Problem, Template

_ONE_STEP = ("\n\n",)
"""Where an edit ends at the latest."""


def inject_templates(paths: PathSource, solve: Template) -> dict[str, Template]:
    """The prompts of the ways in which a source puts errors in; none for other sources.

    Raises:
      UserError: a template is missing or has gaps that nothing fills; names the setting.
    """
    if not isinstance(paths, InjectSettings):
        return {}
    shown, templates = frozenset({"sections"}), dict[How, Template]()
    if "edit" in paths.how:
        templates["edit"] = load_template(paths.template, key="paths.template", gaps=shown)
    if "hint" in paths.how:
        templates["hint"] = load_template(paths.hint_template, key="paths.hint_template", gaps=shown)
    if "hot" in paths.how:
        templates["hot"] = solve
    return {how: templates[how] for how in paths.how}


def rewriting(
    place: Place, problem: Problem, template: Template, paths: InjectSettings, actor: ActorSettings
) -> Request:
    """The request for a step to be written anew: of `paths.engine` for an edit, else of the actor."""
    sampling = msgspec.structs.replace(actor.sampling(), temperature=paths.temperature)
    if place.how == "edit":
        sampling = msgspec.structs.replace(sampling, max_tokens=paths.max_tokens, stop=_ONE_STEP)
    return Request(
        prompt=template.fill({"problem": problem.question, "sections": layout(shown(place, problem))}),
        prefix=place.opening if place.how == "edit" else place.before,
        sampling=sampling,
        images=problem.images,
    )


def shown(place: Place, problem: Problem) -> dict[str, str]:
    """What whoever writes a step anew is shown, heading by heading, in order; never the gold answer."""
    parts = {"Problem": problem.question}
    kind = f"{place.error_type}: {ERROR_TYPES.get(place.error_type, '')}"
    if place.how == "edit":
        if place.index:
            parts["Steps before"] = place.before
        parts |= {"Step to change": place.step, "Kind of error": kind}
    elif place.how == "hint":
        parts["Hint"] = f"The next step holds an error that nobody notices. {kind}."
    return parts
