"""What a run asks of each URL before it begins: whether the model is there, and whether a begun answer is gone on with.

Where that one is answered anew, trees would join what does not belong together, and nothing later would show it.
"""

import asyncio
import logging
from collections.abc import Collection, Mapping, Sequence

import aiohttp
import msgspec

from pipelines.engines import Endpoint, Engine, EngineError, EngineSettings, Usage, connect
from pipelines.engines.keys import Hider, read_key
from pipelines.engines.probe import BEGUN, PLAIN, refusal
from pipelines.engines.settings import Scripted, Simulated, engine_key
from pipelines.errors import UserError
from pipelines.journal import Journal
from schemas import digest

_LOG = logging.getLogger(__name__)
_LIST_SECS = 10.0
_LIST_BYTES = 2**23
_NAMED = 5
"""Models that a message names at most."""
_CONNECT_SECS, _READ_SECS, _ATTEMPTS, _PAUSE_SECS = 5.0, 60.0, 2, 2.0
"""How long a run waits for its one question; a server that is away is waited for by the run's own requests."""
_STAGE = "ExpandTrees"
"""Whose the remembered answer is: a row of its own in the ledger would be one of nothing."""


def check_servers(
    engines: Mapping[str, EngineSettings],
    endpoints: Sequence[tuple[str, Endpoint]],
    continuing: Collection[str],
    journal: Journal,
) -> None:
    """Looks at every URL that the settings name, before a run asks anything there.

    Each is asked for its models, and where begun answers are gone on with, to go on with one: 24 tokens at most, which
    are in no count and no budget. That it did is remembered in the journal, so that a run that is started again asks
    nothing. Servers that the run starts itself are known, as are the simulated and the scripted one. One that does not
    answer now keeps no run from beginning: it may come back.

    Args:
      engines: settings by name; the actor's is called "".
      endpoints: of the same engines.
      continuing: names of those that go on with begun answers.
      journal: the run's.

    Raises:
      UserError: a server has other models, or does not go on with what was begun.
    """
    by_url = {
        name for name, settings in engines.items() if not isinstance(settings, Scripted | Simulated) and settings.url
    }
    looks = [
        (engine_key(name), at_url(endpoint, url), journal if name in continuing else None)
        for name, endpoint in endpoints
        if name in by_url
        for url in endpoint.urls
    ]

    async def check_all() -> None:
        await asyncio.gather(*(_check(*look) for look in looks))

    if looks:
        asyncio.run(check_all())


def at_url(endpoint: Endpoint, url: str) -> Endpoint:
    """An endpoint at one of its URLs, with the patience of a question before the run."""
    limits = msgspec.structs.replace(
        endpoint.limits,
        max_attempts=min(endpoint.limits.max_attempts, _ATTEMPTS),
        max_wait_secs=min(endpoint.limits.max_wait_secs, _PAUSE_SECS),
        overload_secs=min(endpoint.limits.overload_secs, _READ_SECS),
        connect_timeout_secs=min(endpoint.limits.connect_timeout_secs, _CONNECT_SECS),
        read_timeout_secs=min(endpoint.limits.read_timeout_secs, _READ_SECS),
    )
    return msgspec.structs.replace(endpoint, urls=(url,), limits=limits)


async def _check(key: str, endpoint: Endpoint, journal: Journal | None) -> None:
    """Looks at one URL; `journal` is None where no begun answer goes there."""
    engine = connect(endpoint)
    name = f"{digest('continuation', endpoint.urls, engine.identity, BEGUN)}/0"
    try:
        if journal is None:
            await require_model(endpoint, key)
        elif not await journal.get([name]):
            await require_model(endpoint, key)
            await _require_continuation(engine, endpoint, key, name, journal)
    except EngineError as error:
        _LOG.warning("%s: %s could not be looked at before the run: %s", key, endpoint.urls[0], error)
    finally:
        await engine.close()


async def _require_continuation(engine: Engine, endpoint: Endpoint, key: str, name: str, journal: Journal) -> None:
    (sample,) = (await engine.complete(BEGUN)).samples
    if sample.error and (await engine.complete(PLAIN)).samples[0].error:
        return  # It refuses whatever comes, and the run says so.
    if trouble := refusal(sample):
        raise UserError(f"{key}: {endpoint.urls[0]} {trouble}; {_remedy(endpoint)}")
    await journal.put(_STAGE, {name: sample}, Usage())


def _remedy(endpoint: Endpoint) -> str:
    if endpoint.dialect.style == "chat":
        return (
            "solutions are continued from each of their steps, which takes a service whose chat goes on with a begun "
            "assistant's turn, as those of vLLM, SGLang and llama.cpp do, or one that has /v1/completions: engine=vllm "
            "or engine=sglang with engine.style=templated. For critics alone this one will do"
        )
    return (
        "solutions are continued from each of their steps, which takes a server whose /v1/completions gives the text "
        "to the model as it is, as those of vLLM, SGLang and llama.cpp do"
    )


class _Listed(msgspec.Struct):
    id: str


class _List(msgspec.Struct):
    data: list[_Listed]
    has_more: bool = False


async def require_model(endpoint: Endpoint, key: str) -> None:
    """Looks whether the first URL of an endpoint has its model; one that gives no list may.

    Raises:
      UserError: it lists others and not that one.
    """
    names = await listed_models(endpoint)
    if not names or is_listed(endpoint.model, names):
        return
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    listed = ", ".join(name[:100] for name in names[:_NAMED])
    raise UserError(
        f"{key}.model: {endpoint.urls[0]} has no model {endpoint.model!r}; give one of those it has: {listed}{more}"
    )


async def listed_models(endpoint: Endpoint) -> tuple[str, ...]:
    """The models that the first URL of an endpoint says it has; nothing where it gives no whole list of them."""
    key = read_key(endpoint.key_env)
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    body = bytearray()
    try:
        async with (
            aiohttp.ClientSession(headers=headers, timeout=aiohttp.ClientTimeout(total=_LIST_SECS)) as session,
            # The key goes where the settings say, and nowhere else.
            session.get(f"{endpoint.urls[0]}/v1/models", allow_redirects=False) as response,
        ):
            if response.status != 200:
                return ()
            async for part in response.content.iter_any():
                body += part
                if len(body) > _LIST_BYTES:
                    return ()
        found = msgspec.json.decode(body, type=_List)
    except (TimeoutError, aiohttp.ClientError, OSError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return ()
    hider = Hider(key)
    return () if found.has_more else tuple(hider.message(each.id) for each in found.data)


def is_listed(model: str, names: Collection[str]) -> bool:
    """Whether a model is among those that a server lists, by the ways in which servers write one's name.

    Gemini lists `models/NAME`, Ollama `NAME:latest`, OpenRouter takes `NAME:VARIANT`; llama.cpp takes any name, and
    lists the path of its file where it was given no other.
    """
    wanted = (model, f"{model}:latest", model.rpartition(":")[0] or model)
    return any(
        name == one or f"/{name}".endswith(f"/{one}") or f"/{one}".endswith(f"/{name}")
        for name in names
        for one in wanted
    )
