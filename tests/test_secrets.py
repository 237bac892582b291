"""Keys come from the environment, go into one header, and turn up nowhere else."""

import ast
import asyncio
import base64
import gzip
import os
import subprocess
import sys
import urllib.parse
from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from canaries import KEY, OTHERS, contents, found_in, gossiping, leaks

from pipelines.engines.base import EngineError, Reply, Request, Sampling
from pipelines.engines.dialects import Dialect
from pipelines.engines.http import HttpEngine
from pipelines.engines.keys import HIDDEN, Hider, read_key
from pipelines.engines.settings import Limits, Server, Vllm
from pipelines.engines.simulated import SimulatedSettings, serving
from pipelines.errors import UserError
from pipelines.main import main

_ROOT = Path(__file__).parents[1]


def test_the_search_finds_what_it_looks_for(tmp_path):
    """A search that finds nothing in any case would let everything through."""
    pq.write_table(pa.table({"text": [f"says {KEY}"]}), tmp_path / "a.parquet", compression="zstd")
    (tmp_path / "b.gz").write_bytes(gzip.compress(KEY.encode()))
    (tmp_path / "c.txt").write_text(urllib.parse.quote(KEY, safe=""))
    (tmp_path / "d.txt").write_bytes(base64.b64encode(f"Bearer {KEY}".encode()))
    (tmp_path / "e.txt").write_text(OTHERS["HF_TOKEN"])
    (tmp_path / "f.txt").write_text("sk-other")
    assert leaks(tmp_path) == {
        "a.parquet": ["KEY"], "b.gz": ["KEY"], "c.txt": ["KEY"], "d.txt": ["KEY"], "e.txt": ["HF_TOKEN"],
    }  # fmt: skip


# What a server says.


@pytest.mark.parametrize(
    "said",
    [
        KEY,
        f"Bearer {KEY}",
        urllib.parse.quote(KEY, safe=""),
        urllib.parse.quote(KEY),
        base64.b64encode(KEY.encode()).decode(),
        base64.b64encode(f"Bearer {KEY}".encode()).decode(),
        base64.urlsafe_b64encode(f"x:{KEY}".encode()).decode(),
        KEY.replace("/", "\\/"),
    ],
)
def test_a_key_is_hidden_in_every_spelling(said):
    hider = Hider(KEY)
    for text in (said, f"({said})", f"{said}{said}"):
        assert found_in(hider.message(text).encode()) == []
        assert found_in(hider.text(text).encode()) == []
        assert found_in(hider.body(text.encode())) == []
        assert HIDDEN in hider.message(text)


def test_what_holds_no_key_stays_as_it_is():
    text = "Step 1: sk-Canary is a bird. 3 + 4 = 7"
    for key in ("", KEY, "x"):
        assert Hider(key).text(text) == text
        assert Hider(key).body(text.encode()) == text.encode()
    assert Hider("").message(text) == text


def test_a_word_that_serves_as_key_stays_in_texts_and_is_hidden_in_messages():
    """A local vLLM is often given EMPTY; what a model says of emptiness is its own."""
    assert Hider("EMPTY").text("The set is EMPTY.") == "The set is EMPTY."
    assert Hider("EMPTY").message("refused EMPTY") == "refused ***"


def test_a_key_with_a_line_break_behind_it_is_that_key(monkeypatch):
    monkeypatch.setenv("MY_KEY", f"{KEY}\n")
    assert read_key("MY_KEY") == KEY


@pytest.mark.parametrize("key", [f"{KEY}\nX-Other: 1", f"\u201c{KEY}\u201d"])
def test_a_key_that_no_header_can_hold_is_an_error_that_does_not_repeat_it(monkeypatch, key):
    monkeypatch.setenv("MY_KEY", key)
    with pytest.raises(UserError, match="environment variable MY_KEY holds characters") as caught:
        read_key("MY_KEY")
    assert found_in(str(caught.value).encode()) == []


def ask(url: str, num_requests: int = 1, **limits) -> list[Reply | BaseException]:
    """Outcomes of requests to a gossip."""
    engine = HttpEngine(
        urls=(url,),
        model="m",
        revision="",
        dialect=Dialect(kind="vllm", style="raw"),
        limits=Limits(**{"max_attempts": 1, "max_wait_secs": 0.01} | limits),
        key_env="OPENAI_API_KEY",
    )
    sampling = Sampling(max_tokens=9, temperature=1.0)

    async def work():
        sent = (engine.complete(Request(prompt=f"Q{i}", sampling=sampling)) for i in range(num_requests))
        try:
            return await asyncio.gather(*sent, return_exceptions=True)
        finally:
            await engine.close()

    return asyncio.run(work())


@pytest.mark.parametrize("trouble", ["400", "401", "403", "404", "500", "503", "redirect", "bad header", "cut"])
def test_no_error_repeats_the_key_whatever_the_server_does(monkeypatch, trouble):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with gossiping("http://elsewhere:1", trouble) as (url, gossip):
        outcomes = ask(url, 40)
        assert gossip.told == 40
    for outcome in outcomes:
        seen: BaseException | Reply | None = outcome
        while seen is not None:  # A traceback also shows what an error came from.
            assert found_in(repr(seen).encode()) == []
            hides = not isinstance(seen, BaseException) or seen.__suppress_context__
            seen = None if hides else (seen.__cause__ or seen.__context__)


def test_a_redirect_is_not_followed_and_says_where_it_leads(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with gossiping() as (elsewhere, other), gossiping(elsewhere, "redirect") as (url, _):
        (error,) = ask(url)
        assert other.asked == 0
    assert type(error) is UserError
    assert f"it sends requests on to {elsewhere}/other?key=***" in str(error)


@pytest.mark.parametrize(
    ("key", "remedy"),
    [
        ("", "no key was sent, for the environment variable OPENAI_API_KEY (api_key_env) is not set; export it"),
        ("sk-of-somebody-else", "give the right key in the environment variable OPENAI_API_KEY"),
    ],
)
def test_a_refused_key_says_which_variable_and_whether_it_is_set(monkeypatch, key, remedy):
    monkeypatch.setenv("OPENAI_API_KEY", key)
    with gossiping() as (url, _):
        (error,) = ask(url)
    assert type(error) is UserError
    assert not isinstance(error, EngineError)  # It ends the run and is no element's failure.
    assert "HTTP 401" in str(error)
    assert remedy in str(error)


# Keys in the wrong place.

_MISPLACED = {
    "user and password": {"url": f"https://me:{KEY.replace('/', '')}@host/api"},
    "user alone": {"url": "http://sk-canary123@host"},
    "query": {"url": "https://host/api?api_key=sk-canary123"},
    "fragment": {"url": "https://host/#sk-canary123"},
    "second URL": {"url": "http://a,http://b?token=sk-canary123"},
    "instead of the URL": {"url": "sk-canary123"},
    "no scheme": {"url": "me:sk-canary123@host"},
    "OpenAI's": {"api_key_env": "sk-canary123"},
    "the header": {"api_key_env": "Bearer canary123"},
    "Hugging Face's": {"api_key_env": "hf_canaryOfTheHub12345"},
    "hex": {"api_key_env": "canary1f09a3b7c2d84e5f6a7b8c9d0e1f2a3b"},
    "an assignment": {"api_key_env": "OPENAI_API_KEY=canary"},
}


@pytest.mark.parametrize("fields", _MISPLACED.values(), ids=_MISPLACED)
@pytest.mark.parametrize("record", [Server, Vllm])
def test_a_key_in_the_wrong_place_is_refused_and_not_repeated(record, fields):
    with pytest.raises(ValueError, match=r"environment variable|must start with http") as caught:
        record(**{"url": "http://host", "model": "m"} | fields)
    assert "canary" not in str(caught.value).lower()


@pytest.mark.parametrize(
    "fields",
    [
        {"url": "http://127.0.0.1:8000,https://host.example/v2/models@latest/"},
        {"url": "http://[::1]:8000"},
        {"api_key_env": ""},
        {"api_key_env": "MY_KEY"},
        {"api_key_env": "_k2"},
        {"api_key_env": "AZURE_OPENAI_API_KEY_EASTUS2_V3"},
        {"api_key_env": "SK_KEY_OF_TEAM_7"},
    ],
)
def test_what_is_no_key_is_taken(fields):
    assert msgspec.structs.asdict(Vllm(**{"url": "http://host", "model": "m"} | fields)).items() >= fields.items()


@pytest.mark.parametrize("command", [["run"], ["run", "dry_run=true"], ["run", "--config"], ["doctor"]])
@pytest.mark.parametrize(
    "setting",
    ["engine.url='https://me:canary@host'", "engine.api_key_env=sk-canary123", "engine.url='http://host?key=canary'"],
)
def test_the_command_line_does_not_repeat_it_either(tmp_path, capsys, command, setting):
    settings = ["engine=openai", "engine.url=http://host", "engine.model=m", f"out={tmp_path / 'out'}", setting]
    assert main([*command, *settings]) in (1, 2)
    printed = capsys.readouterr()
    assert "api_key_env" in printed.out + printed.err
    assert "canary" not in printed.out + printed.err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["engine.model", "actor.solve_template", "engine.api_key_env", "engine.revision"])
@pytest.mark.parametrize("command", [["run"], ["run", "--config"]])
def test_a_setting_that_reads_the_key_from_the_environment_is_refused(tmp_path, capsys, monkeypatch, command, name):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    settings = ["engine=openai", "engine.url=http://host", "engine.model=m", f"out={tmp_path / 'out'}"]
    assert main([*command, *settings, f"{name}=${{oc.env:OPENAI_API_KEY}}"]) == 2
    printed = capsys.readouterr()
    assert "api_key_env" in printed.err
    assert found_in((printed.out + printed.err).encode()) == []


@pytest.mark.parametrize(
    "setting",
    ["+engine.env.HF_TOKEN=canary", "+engine.env.vllm_api_key=canary", "engine.extra_args=['--api-key=canary']",
     "engine.extra_args=['--max-num-seqs=8','--api-key','canary']"],
)  # fmt: skip
def test_a_server_that_is_started_here_gets_its_secrets_from_the_environment(capsys, setting):
    assert main(["run", "--config", "engine=vllm", "engine.model=m", setting]) == 2
    printed = capsys.readouterr()
    assert "would hold a secret" in " ".join(printed.err.split())
    assert "canary" not in printed.out + printed.err
    assert main(["run", "--config", "engine=vllm", "engine.model=m", "+engine.env.VLLM_USE_V1=1"]) == 0


def test_a_key_of_a_name_that_no_setting_has_is_not_repeated(capsys):
    assert main(["run", "engine=openai", "engine.url=http://host", "engine.model=m", "engine.api_key=sk-canary1"]) == 2
    assert "canary" not in capsys.readouterr().err


# Whole runs.

_BUG = """
import sys
import pipelines.engines.http
def read_reply(*arguments):
    raise ZeroDivisionError("a bug of ours")
pipelines.engines.http.read_reply = read_reply
from pipelines.main import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("trouble", "words", "codes"),
    [
        ("", ["run"], {0, 3}),
        ("", ["run", "dry_run=true"], {0, 3}),
        ("", ["run", "--config"], {0}),
        ("", ["doctor"], {0, 1}),
        ("", ["a bug"], {1}),
        ("401", ["run"], {2}),
        ("403", ["run"], {2}),
        ("redirect", ["run"], {2}),
        ("bad header", ["run"], {3}),
        ("500", ["run"], {3}),
        ("cut", ["run"], {3}),
        ("503", ["doctor"], {1}),
    ],
)
def test_no_byte_of_a_run_holds_a_secret(tmp_path, trouble, words, codes):
    """Everything that is written or said, at the most talkative setting of the log."""
    out = tmp_path / "out"
    program = ["-c", _BUG, "run"] if words == ["a bug"] else ["-m", "pipelines.main", *words]
    with serving(SimulatedSettings()) as behind, gossiping(behind, trouble) as (url, gossip):
        settings = [
            *("engine=vllm", f"engine.url={url}", "engine.model=simulated", "problems=simulated", f"out={out}"),
            *("problems.num_problems=4", "actor=plain", "panel=blind", "search.max_searches=3"),
            *("engine.limits.max_attempts=2", "engine.limits.max_wait_secs=0.05"),
        ]
        done = subprocess.run(
            [sys.executable, *program, *settings],
            capture_output=True,
            check=False,
            cwd=_ROOT,
            env=os.environ | OTHERS | {"OPENAI_API_KEY": KEY, "WRONGTURN_LOG": "DEBUG"},
        )
    assert done.returncode in codes, done.stderr.decode()[-3000:]
    assert "--config" in words or gossip.told + gossip.asked > 0
    if words == ["run"]:
        assert gossip.told > 0
        # A key that is refused costs the requests that are in flight, not every problem's.
        assert trouble not in ("401", "403") or gossip.asked <= 64
    if words == ["run"] and not trouble:
        assert any(HIDDEN.encode() in contents(path) for path in (out / "trees").glob("*.parquet"))
    assert found_in(done.stdout) == []
    assert found_in(done.stderr) == []
    assert not out.exists() or leaks(out) == {}


# What may run whatever it reads.

_BANNED_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "shelve", "marshal", "joblib"}
_BANNED_CALLS = {"eval", "exec", "__import__"}
_BANNED_ATTRIBUTES = {
    ("os", "system"), ("os", "popen"), ("yaml", "load"), ("yaml", "unsafe_load"), ("yaml", "full_load"),
    ("np", "load"), ("numpy", "load"), ("torch", "load"), ("pd", "read_pickle"), ("pandas", "read_pickle"),
    ("builtins", "eval"), ("builtins", "exec"),
}  # fmt: skip


def dangers(source: str) -> list[str]:
    """What a program does that may run data, by line."""
    found = []
    for node in ast.walk(ast.parse(source)):
        names: list[str] = []
        match node:
            case ast.Import(names=aliases):
                names = [alias.name for alias in aliases if alias.name.split(".")[0] in _BANNED_MODULES]
            case ast.ImportFrom(module=str(module)) if module.split(".")[0] in _BANNED_MODULES:
                names = [module]
            case ast.Call(func=ast.Name(id=name)) if name in _BANNED_CALLS:
                names = [name]
            case ast.Attribute(value=ast.Name(id=owner), attr=attribute) if (owner, attribute) in _BANNED_ATTRIBUTES:
                names = [f"{owner}.{attribute}"]
            case ast.keyword(arg="shell" | "allow_pickle", value=ast.Constant(value=True)):
                names = [f"{node.arg}=True"]
        found += [f"{getattr(node, 'lineno', 0)}: {name}" for name in names]
    return found


def test_nothing_that_is_read_can_run():
    folders = ("schemas", "mcts", "annotators", "pipelines", "conf", "benchmarks")
    files = [path for folder in folders for path in (_ROOT / folder).rglob("*.py")]
    assert len(files) > 80
    found = {str(path.relative_to(_ROOT)): dangers(path.read_text(encoding="utf-8")) for path in files}
    assert {name: lines for name, lines in found.items() if lines} == {}


@pytest.mark.parametrize(
    "line",
    [
        "import pickle", "from cloudpickle import loads", "eval(text)", "exec(text)", "yaml.load(text)",
        "np.load(path)", "np.savez(path, allow_pickle=True)", "torch.load(path)", "os.system(text)",
        "subprocess.run(text, shell=True)",
    ],
)  # fmt: skip
def test_what_could_run_it_would_be_seen(line):
    assert len(dangers(line)) == 1
