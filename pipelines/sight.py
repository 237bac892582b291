"""Whether everybody who is shown a problem can see its images."""

from collections.abc import Iterator, Sequence

from annotators.rounds import Rounds
from mcts.injected import InjectSettings
from pipelines.engines.settings import engine_key, sees_images
from pipelines.errors import UserError
from pipelines.settings import Settings
from schemas import Problem


def check_sight(settings: Settings, problems: Sequence[Problem]) -> None:
    """Refuses problems with images where a model that is shown problems sees no images.

    Such a model would answer all the same, about something that it has not seen.

    Raises:
      UserError: names the engine, whose it is, and the problems.
    """
    pictured = [problem.id for problem in problems if problem.images]
    if not pictured:
        return
    engines = {"": settings.engine, **settings.engines}
    blind: dict[str, list[str]] = {}
    for who, name in _shown(settings):
        if not sees_images(engines[name]):
            blind.setdefault(name, []).append(who)
    for name, users in blind.items():
        key = engine_key(name)
        kind = engines[name].__struct_config__.tag
        raise UserError(
            f"{key} (kind {kind}, for {', '.join(users)}) is shown no images, and {len(pictured)} of {len(problems)} "
            f"problems have some (first: {pictured[0]!r}); take a model that sees images, by engine=openai, vllm or "
            f"sglang with {key}.style=chat {key}.images=true, or set problems.columns.images=null where the images do "
            "not matter"
        )


def _shown(settings: Settings) -> Iterator[tuple[str, str]]:
    """Who is shown problems, and by which of the run's engines."""
    yield "the actor", ""
    if isinstance(settings.paths, InjectSettings):
        yield "whoever puts errors into steps", settings.paths.engine
    if settings.search.hybrid.asks_a_model:
        yield "the model of search.hybrid", settings.search.hybrid.engine
    if isinstance(settings.loop, Rounds) and settings.loop.asks_a_model:
        yield "the giver of feedback", settings.loop.engine
    if settings.scope.feedback:
        yield "the judge of scopes", settings.scope.engine
    panel = settings.panel
    for agent in panel.agents:
        yield f"critic {agent.name}", agent.engine
    if panel.crucial.template:
        yield "the writer of crucial information", panel.crucial.engine
    if panel.meta_template:
        yield "the meta-critic", panel.meta_engine
    if panel.compose_template:
        yield "the composing model", panel.compose_engine
