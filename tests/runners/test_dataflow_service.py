"""Whole runs on Dataflow's stand-in: submitted, run as they were staged, read back; and what becomes of jobs."""

import json
import re
import runpy
import signal
import subprocess
import sys
import time
from pathlib import Path

import datasets
import pytest

from pipelines.config import compose
from pipelines.engines.simulated.hosting import serving
from pipelines.engines.simulated.settings import SimulatedSettings
from pipelines.errors import UserError
from pipelines.journal import Journal
from pipelines.main import main
from pipelines.run import Watcher, run
from pipelines.runners import dataflow
from tests.runners.google_cloud import blobs, cloud_storage, dataflow_service, run_staged

pytestmark = [
    pytest.mark.stores,
    # Google's libraries warn of each other.
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.timeout(300),
]

_ROOT = Path(__file__).parents[2]
_BUCKET = "wrongturn-test"
_PASSWORD = "pw4711"


@pytest.fixture(scope="module")
def model():
    with serving(SimulatedSettings()) as url:
        yield url


@pytest.fixture(scope="module")
def store():
    with cloud_storage(_BUCKET) as url:
        yield url


@pytest.fixture(scope="module")
def redis_url(tmp_path_factory):
    pytest.importorskip("redis", reason="needs pip install 'wrongturn[redis]'")
    from benchmarks.redis_server import PASSWORD, is_installed, redis_server
    from pipelines.journal import PASSWORD_ENV

    if not is_installed():
        pytest.skip("needs redis-server: apt-get install redis-server")
    with redis_server(tmp_path_factory.mktemp("redis")) as server, pytest.MonkeyPatch.context() as patch:
        patch.setenv(PASSWORD_ENV, PASSWORD)
        # Written so that nobody takes it for loopback: workers of the stand-in are here, Dataflow's would not be.
        yield lambda name: server.url(prefix=name).replace("127.0.0.1", "127.1")


@pytest.fixture
def words(store, model, redis_url, request):
    """Settings of a run of this test's own folder and journal."""

    def make(service="", *more, runner="dataflow"):
        options = ["--no_auth", *([f"--dataflow_endpoint={service}"] if service else [])]
        cloud = [
            *("runner.project=my-project", "runner.region=europe-west4", "runner.watch_secs=0.2"),
            *(f"runner.temp_location=gs://{_BUCKET}/temp", f"runner.options={options}"),
        ]
        name = "".join(letter for letter in request.node.name if letter.isalnum())
        return [
            *("engine=vllm", f"engine.url={model}", "engine.model=simulated", "problems=simulated"),
            *("problems.num_problems=12", "runner.problems_per_shard=4", "actor=plain", "panel=blind"),
            *("search.max_searches=4", f"out=gs://{_BUCKET}/{name}/out", f"journal={redis_url(name)}"),
            *(f"runner={runner}", *(cloud if runner == "dataflow" else []), *more),
        ]

    return make


def tables(folder):
    return {
        name.partition("/out/")[2]: content
        for name, content in blobs(_BUCKET, folder).items()
        if name.endswith(".parquet")
    }


def test_a_run_on_dataflow_fills_the_shards_that_a_run_here_would(words, tmp_path):
    """The stand-in takes the pipeline from where it was staged; its workers read and write the store."""
    with dataflow_service() as (url, service):
        settings = compose(words(url))
        result = run(settings, Watcher())
    assert [job["currentState"] for job in service.jobs] == ["JOB_STATE_DONE"]
    assert result.is_success
    assert result.unfinished == ()
    here = tmp_path / "out"
    local = run(compose([*words(runner="direct"), f"out={here}", "journal=''"]), Watcher())
    assert local.books.rows == result.books.rows
    written = tables(settings.out.removeprefix(f"gs://{_BUCKET}/"))
    assert written == {str(path.relative_to(here)): path.read_bytes() for path in here.rglob("*.parquet")}
    for table in ("trees", "sft"):
        files = [f"{settings.out}/{table}/{name}" for name in sorted(path.name for path in here.glob(f"{table}/*"))]
        loaded = datasets.load_dataset(
            "parquet",
            data_files=files,
            split="train",
            storage_options={"token": "anon"},
            cache_dir=str(tmp_path / table),
        )
        assert loaded.num_rows == result.books.rows[table] > 0


def test_a_template_runs_nothing_and_its_job_leaves_nothing_to_ask(words, capsys):
    template = f"gs://{_BUCKET}/templates/whole"
    with dataflow_service() as (url, service):
        assert main(["run", *words(url, f"runner.template={template}")]) == 0
        told = capsys.readouterr().out
        assert "gcloud dataflow jobs run wrongturn-" in told
        assert f"--gcs-location={template}" in told
        assert service.asked == []
        settings = compose(words(url))
        folder = settings.out.removeprefix(f"gs://{_BUCKET}/")
        assert tables(folder) == {}

        (place,) = re.findall(
            r"gs://[^\"]*/pipeline\.pb", blobs(_BUCKET, "templates/whole")["templates/whole"].decode()
        )
        place = place.removeprefix(f"gs://{_BUCKET}/")
        run_staged(blobs(_BUCKET, place)[place])
        filled = tables(folder)
        assert len(filled) > 0
        asked = Journal(settings.journal, patience_secs=1).size()
        assert asked > 0

        result = run(settings, Watcher())
    assert result.unfinished == ()
    # One more: that the server goes on with begun answers, which a run on this machine asks before it begins.
    assert Journal(settings.journal, patience_secs=1).size() == asked + 1
    assert tables(folder) == filled


def test_a_flex_templates_launcher_writes_the_job_that_the_service_wants(words, monkeypatch):
    """With what the service hands to the launcher: the parameters, and where the job's description has to lie."""
    monkeypatch.syspath_prepend(_ROOT / "deploy")
    launch = runpy.run_path(str(_ROOT / "deploy" / "launch.py"))
    given = dict(word.split("=", 1) for word in words() if not word.startswith("runner"))
    wanted = f"gs://{_BUCKET}/staging/template_launches/1/job_object"
    of_service = [
        *("--runner=DataflowRunner", "--job_name=first", "--project=my-project", "--region=europe-west4", "--no_auth"),
        *(f"--temp_location=gs://{_BUCKET}/temp", f"--template_location={wanted}"),
        "--sdk_container_image=REGISTRY/wrongturn-dataflow:VERSION",
    ]
    parameters = [f"--{name.replace('.', '__')}={value}" for name, value in given.items()]
    assert main(["run", *launch["overrides"]([*parameters, *of_service])]) == 0
    job = json.loads(blobs(_BUCKET, "staging/template_launches")["staging/template_launches/1/job_object"])
    (pool,) = job["environment"]["workerPools"]
    assert pool["workerHarnessContainerImage"] == "REGISTRY/wrongturn-dataflow:VERSION"
    assert {package["name"] for package in pool["packages"]} >= {"extra_packages.txt"}


def test_a_job_that_an_earlier_start_has_left_is_cancelled_first(words):
    with dataflow_service() as (url, service):
        service.jobs += [
            {"id": "job-0", "name": "wrongturn-1", "currentState": "JOB_STATE_RUNNING"},
            {"id": "job-1", "name": "wrongturn-2", "currentState": "JOB_STATE_RUNNING"},
            {"id": "job-2", "name": "wrongturn-1", "currentState": "JOB_STATE_DONE"},
        ]
        runner = compose(words(url)).runner
        with dataflow.staging(runner, "wrongturn-1"):
            assert [job["currentState"] for job in service.jobs] == [
                "JOB_STATE_CANCELLED", "JOB_STATE_RUNNING", "JOB_STATE_DONE",
            ]  # fmt: skip


def test_one_that_does_not_end_is_named(words, monkeypatch):
    monkeypatch.setattr(dataflow, "_CANCEL_SECS", 0.2)
    monkeypatch.setattr(dataflow, "_LOOK_SECS", 0.1)
    with dataflow_service() as (url, service):
        service.is_deaf = True
        service.jobs.append({"id": "job-7", "name": "wrongturn-1", "currentState": "JOB_STATE_RUNNING"})
        with (
            pytest.raises(UserError, match="the job job-7 of an earlier start does not end"),
            dataflow.staging(compose(words(url)).runner, "wrongturn-1"),
        ):
            pass


def test_what_the_service_refuses_is_one_line(words, capsys):
    with dataflow_service() as (url, service):
        service.refuses = "The caller does not have permission"
        assert main(["run", *words(url)]) == 2
    told = " ".join(capsys.readouterr().err.split())
    assert "wrongturn: runner=dataflow: project my-project cannot be used: 403" in told
    assert "The caller does not have permission" in told
    assert "roles/dataflow.developer" in told


_PROGRAM = """
import sys
import apache_beam.internal.gcp.auth as auth
auth._Credentials._credentials_init = True
from pipelines.main import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize(("how", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_run_that_is_stopped_by_hand_cancels_its_job(words, how, code):
    with dataflow_service() as (url, service):
        service.holds_jobs = True
        started = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM, "run", *words(url)], cwd=_ROOT, stderr=subprocess.PIPE, text=True
        )
        try:
            for _ in range(600):
                if service.jobs or started.poll() is not None:
                    break
                time.sleep(0.2)
            assert service.jobs, started.stderr.read()
            time.sleep(1)
            started.send_signal(how)
            _, said = started.communicate(timeout=60)
        finally:
            started.kill()
            started.wait()
    assert started.returncode == code, said
    assert [job["currentState"] for job in service.jobs] == ["JOB_STATE_CANCELLED"]
