"""Which model it is that answers: the two names that stand in every row and in every journal key."""

from pipelines.engines import llama_cpp
from pipelines.engines.launching import revision_of, served_name
from pipelines.engines.settings import EngineSettings, LlamaCpp, Managed, Scripted, Simulated
from schemas import digest


def identity_of(settings: EngineSettings, name: str) -> tuple[str, str]:
    """Model and revision of an engine, by the files of this machine where its settings name files.

    Args:
      settings: the engine's.
      name: the engine's in the settings: `engine`, or `engines.NAME`.

    Raises:
      UserError: there is no such model here.
    """
    match settings:
        case LlamaCpp(url=""):
            path = llama_cpp.find_model(settings.model_path)
            return path.name, llama_cpp.file_revision(path)
        case Simulated():
            return "simulated", digest(settings.world)[:16]
        case Scripted():
            return settings.rule, ""
        case Managed(url=""):
            return served_name(settings), revision_of(settings, name)
    return settings.model, settings.revision
