"""The contract, held against every engine: those in process in the default suite, the others behind their markers."""

import hashlib
import shutil

import pytest

from pipelines.config import compose
from pipelines.engines import simulated as simulated_server
from pipelines.meter import METER
from pipelines.run import Watcher, run

pytest.register_assert_rewrite("tests.engines.contract")

from benchmarks import contract  # noqa: E402
from tests.engines import subjects  # noqa: E402
from tests.engines.contract import Contract  # noqa: E402
from tests.engines.ports import held_port  # noqa: E402


@pytest.fixture(scope="module")
def scripted():
    with subjects.scripted() as subject:
        yield subject


@pytest.fixture(scope="module")
def simulated():
    with subjects.simulated() as subject:
        yield subject


@pytest.fixture(scope="module")
def llama_cpp():
    with subjects.llama_cpp() as by_style:
        yield by_style


@pytest.fixture(scope="module")
def vllm():
    with subjects.vllm() as by_style:
        yield by_style


@pytest.fixture(scope="module")
def sglang():
    with subjects.sglang() as by_style:
        yield by_style


class TestScripted(Contract):
    @pytest.fixture
    def subject(self, scripted):
        return scripted


class TestSimulated(Contract):
    @pytest.fixture
    def subject(self, simulated):
        return simulated


@pytest.mark.model
@pytest.mark.slow
class TestLlamaCpp(Contract):
    @pytest.fixture(params=subjects.MANNERS)
    def subject(self, llama_cpp, request):
        return llama_cpp[request.param]


@pytest.mark.vllm
@pytest.mark.slow
@pytest.mark.timeout(1800)
class TestVllm(Contract):
    @pytest.fixture(params=subjects.MANNERS)
    def subject(self, vllm, request):
        return vllm[request.param]


@pytest.mark.sglang
@pytest.mark.slow
@pytest.mark.timeout(1800)
class TestSglang(Contract):
    @pytest.fixture(params=subjects.MANNERS)
    def subject(self, sglang, request):
        return sglang[request.param]


def test_the_command_says_by_its_exit_code_whether_a_clause_is_broken(capsys):
    assert contract.main(["scripted"]) == 0
    assert "broken" not in capsys.readouterr().out
    with simulated_server.serving(simulated_server.SimulatedSettings()) as url:
        # The simulated world cannot read a problem of another kind; that it is there and can be asked is kept.
        assert contract.main(["--url", url, "--model", "simulated"]) == 1
    words = {line[:40].strip(): line.split()[-1] for line in capsys.readouterr().out.splitlines() if line}
    assert words["a server that is not there is unavailable"[:40]] == "kept"
    assert words["n samples are n and not one"] == "broken"
    assert words["no template token stands between prompt "[:40].strip()] == "-"


def test_the_command_has_one_line_for_a_server_that_does_not_answer(capsys):
    with held_port() as (_, url), pytest.raises(SystemExit) as caught:
        contract.main(["--url", url, "--model", "m"])
    assert caught.value.code == 2
    assert f"error: {url}: ClientConnectorError" in capsys.readouterr().err


@pytest.mark.sglang
@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_small_run_on_sglang_is_repeated_by_its_journal(sglang, tmp_path):
    """Its seeds are ignored on a CPU: that the second start asks nothing and writes the same is the journal's doing."""
    endpoint = sglang["raw"].endpoint
    out = tmp_path / "out"
    overrides = ["engine=sglang", f"engine.url={endpoint.urls[0]}", f"engine.model={endpoint.model}", f"out={out}"]
    overrides += ["problems.num_problems=6", "search.max_rollouts=16"]
    overrides += ["verify.help.rollouts=2", "verify.help.max_rollouts=2"]
    settings = compose(overrides)
    before = METER.read().paid
    result = run(settings, Watcher())
    first = METER.read().paid
    assert [stage.stage for stage in result.books.stages if not stage.balanced] == []
    assert (result.books.rows["trees"], result.failure_share) == (6, 0)
    assert first.requests - before.requests >= 2
    assert first.cached_tokens > before.cached_tokens
    shards = digests(out)
    assert shards
    shutil.rmtree(out / "trees")
    run(settings, Watcher())
    assert METER.read().paid == first
    assert digests(out) == shards


def digests(out):
    """SHA-256 of each shard by its path in the output."""
    return {
        str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest() for path in out.rglob("*.parquet")
    }
