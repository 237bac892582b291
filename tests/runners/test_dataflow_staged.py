"""A job staged for Dataflow on an emulator of Cloud Storage, and read back: what would run there, and with what."""

import base64
import bz2
import contextlib
import json
import re
import sys
import zipfile
import zlib
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import apache_beam as beam
import pytest
from apache_beam.internal import pickler
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.portability.api import beam_runner_api_pb2

from pipelines.coders import register_coders
from pipelines.config import compose
from pipelines.engines import serve_all
from pipelines.errors import UserError
from pipelines.graph import build
from pipelines.plan import make_plan
from pipelines.run import read_inputs, worker_spec
from pipelines.runners.dataflow import CHECKS, extra_requirements, stage_template, staging
from pipelines.runners.package import make_wheel
from tests.canaries import KEY, OTHERS, found_in, spellings
from tests.runners.google_cloud import blobs, cloud_storage

pytestmark = [
    pytest.mark.stores,
    # Google's libraries warn of each other.
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.timeout(180),
]

_ROOT = Path(__file__).parents[2]
_BUCKET = "wrongturn-test"
_IMAGE = "europe-docker.pkg.dev/my-project/images/wrongturn:0.1.0"
_PASSWORD = "canary-of-the-journal/42"


@pytest.fixture(scope="module")
def emulator() -> Iterator[str]:
    """URL of a store with one bucket; the environment has every secret."""
    with pytest.MonkeyPatch.context() as patch, cloud_storage(_BUCKET) as url:
        for name, secret in {"OPENAI_API_KEY": KEY, "WRONGTURN_REDIS_PASSWORD": _PASSWORD, **OTHERS}.items():
            patch.setenv(name, secret)
        yield url


def settings(*overrides):
    return compose(
        [
            *("engine=openai", "engine.url=http://10.0.0.7:8000", "engine.model=m", "problems=simulated"),
            *("actor=plain", "panel=blind", "problems.num_problems=6", f"out=gs://{_BUCKET}/out"),
            *("journal=redis://10.0.0.3:6379/0", "runner=dataflow", "runner.project=my-project"),
            *("runner.region=europe-west4", f"runner.temp_location=gs://{_BUCKET}/temp", "runner.options=[--no_auth]"),
            *overrides,
        ]
    )


def graph_of(given):
    """What adds a run's graph to a pipeline."""
    plan = make_plan(given, read_inputs(given))
    with serve_all({"": given.engine}) as endpoints:
        spec = worker_spec(plan, endpoints, given.journal)
    register_coders()
    return lambda pipeline: build(pipeline, plan, spec, out=given.out, shards=[0])


def stage(given, name="wrongturn-test"):
    add = graph_of(given)
    with staging(given.runner, name) as words:

        def submit(shards):
            pipeline = beam.Pipeline(options=PipelineOptions(words))
            add(pipeline)
            return pipeline.run()

        return stage_template(submit, given.runner, name, [0])


class Job:
    """A job as it lies in the bucket."""

    def __init__(self, template):
        self.description = json.loads(blobs(_BUCKET)[template])
        self.environment = self.description["environment"]
        (self.pool,) = self.environment["workerPools"]
        self.options = self.environment["sdkPipelineOptions"]["options"]
        folder = self.options["staging_location"].removeprefix(f"gs://{_BUCKET}/")
        self.files = {Path(name).name: content for name, content in blobs(_BUCKET, folder).items()}
        self.pipeline = beam_runner_api_pb2.Pipeline.FromString(self.files["pipeline.pb"])
        self.raw = {template: blobs(_BUCKET)[template], **self.files}


@pytest.fixture(scope="module")
def job(emulator):
    """Staged with an image of ours."""
    image = f"runner.sdk_container_image={_IMAGE}"
    stage(settings(image, f"runner.template=gs://{_BUCKET}/templates/ours", "runner.max_num_workers=7"))
    return Job("templates/ours")


@pytest.fixture(scope="module")
def bare_job(emulator):
    """Staged for Beam's own image."""
    stage(settings(f"runner.template=gs://{_BUCKET}/templates/bare"))
    return Job("templates/bare")


def test_the_job_is_the_one_that_was_wanted(job):
    assert job.description["name"] == "wrongturn-test"
    assert job.description["type"] == "JOB_TYPE_BATCH"
    assert (job.options["project"], job.options["region"]) == ("my-project", "europe-west4")
    assert job.pool["autoscalingSettings"]["maxNumWorkers"] == 7
    assert job.options["save_main_session"] is False


def test_the_sdk_container_is_the_one_that_was_set(job):
    assert job.pool["workerHarnessContainerImage"] == _IMAGE
    assert [each["containerImage"] for each in job.pool["sdkHarnessContainerImages"]] == [_IMAGE]
    payloads = [environment.payload for environment in job.pipeline.components.environments.values()]
    assert [beam_runner_api_pb2.DockerPayload.FromString(payload).container_image for payload in payloads] == [_IMAGE]


def test_without_one_it_is_beams_of_this_version_and_python(bare_job):
    version, python = beam.version.__version__, f"{sys.version_info[0]}.{sys.version_info[1]}"
    assert bare_job.pool["workerHarnessContainerImage"].endswith(f"/beam_python{python}_sdk:{version}")


def test_nothing_is_staged_but_our_package_and_the_pipeline(job, bare_job, tmp_path):
    wheel = make_wheel(tmp_path)
    assert set(job.files) == {"pipeline.pb", "extra_packages.txt", wheel.name}
    assert set(bare_job.files) == {*job.files, "requirements.txt"}
    for staged in (job, bare_job):
        assert staged.files[wheel.name] == wheel.read_bytes()
        assert staged.files["extra_packages.txt"].decode().split() == [wheel.name]
        assert {package["name"] for package in staged.pool["packages"]} == set(staged.files) - {"pipeline.pb"}
        dependencies = [
            beam_runner_api_pb2.ArtifactStagingToRolePayload.FromString(each.role_payload).staged_name
            for environment in staged.pipeline.components.environments.values()
            for each in environment.dependencies
        ]
        assert set(dependencies) == set(staged.files) - {"pipeline.pb"}
    assert bare_job.files["requirements.txt"].decode().split() == extra_requirements()


def test_our_prompts_are_in_what_is_staged(job):
    (wheel,) = (content for name, content in job.files.items() if name.endswith(".whl"))
    with zipfile.ZipFile(BytesIO(wheel)) as archive:
        names = {name for name in archive.namelist() if name.endswith(".txt") and "/prompts/" in name}
        assert names == {path.relative_to(_ROOT).as_posix() for path in _ROOT.glob("*/prompts/*.txt")}
        assert len(names) > 10


def test_the_stages_have_the_graphs_names(job):
    given = settings()
    local = beam.Pipeline(options=PipelineOptions([]))
    graph_of(given)(local)
    expected = {part.full_label for part in local._current_transform().parts}
    assert {"ExpandTrees", "PairPaths", "WriteCritiques", "AggregateCritiques", "VerifyCritiques"} <= expected
    (root,) = job.pipeline.root_transform_ids
    transforms = job.pipeline.components.transforms
    assert {transforms[each].unique_name for each in transforms[root].subtransforms} == expected


# Secrets.

_BASE64 = re.compile(rb"[A-Za-z0-9+/_-]{24,}")
_PACKED = re.compile(rb"x[\x01\x5e\x9c\xda]|BZh[1-9]|\x1f\x8b\x08")
"""How a stream begins that zlib, bz2 or gzip has made."""


def layers(content: bytes, depth: int = 5) -> Iterator[bytes]:
    """Bytes, and whatever is packed in them: archives, compressed streams, base64, one in the other.

    What stands before a packed part, a length for example, may look like a piece of it: wherever one could begin is
    tried.
    """
    yield content
    if not depth:
        return
    if content.startswith(b"PK"):
        with zipfile.ZipFile(BytesIO(content)) as archive:
            for name in archive.namelist():
                yield from layers(archive.read(name), depth - 1)
        return
    for found in _PACKED.finditer(content):
        for unpacker in (zlib.decompressobj(47), bz2.BZ2Decompressor()):  # 47: zlib's or gzip's header.
            with contextlib.suppress(OSError, EOFError, zlib.error):
                yield from layers(unpacker.decompress(content[found.start() :]), depth - 1)
    for found in _BASE64.finditer(content):
        text = found[0].replace(b"-", b"+").replace(b"_", b"/")
        for begin in range(4):
            whole = text[begin : begin + (len(text) - begin) // 4 * 4]
            yield from layers(base64.b64decode(whole), depth - 1)


def secrets_in(content: bytes) -> set[str]:
    return {
        name
        for layer in layers(content)
        for name in [*found_in(layer), *(["PASSWORD"] if any(each in layer for each in spellings(_PASSWORD)) else [])]
    }


def test_no_secret_of_the_environment_is_in_what_is_staged(job, bare_job):
    for staged in (job, bare_job):
        for name, content in staged.raw.items():
            assert secrets_in(content) == set(), name


@pytest.mark.parametrize("name", ["KEY", *OTHERS, "PASSWORD"])
def test_one_would_be_seen_in_a_stage_and_in_the_package(name):
    secret = {"KEY": KEY, "PASSWORD": _PASSWORD, **OTHERS}[name]
    for before in (b"", b"\x0a", b"\x0aN", b"\x0apayload"):
        assert secrets_in(before + pickler.dumps({"engine": [secret]}) + b"\x12beam") == {name}
    packed = BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("pipelines/prompts/solve.txt", f"Solve it. {secret}")
    assert secrets_in(packed.getvalue()) == {name}


def test_the_search_sees_what_the_stages_hold(job):
    """The journal's address and the name of the key's variable are no secrets, and travel inside of the stages."""
    told = list(layers(job.files["pipeline.pb"]))
    for text in (b"redis://10.0.0.3:6379/0", b"OPENAI_API_KEY", b"http://10.0.0.7:8000"):
        assert any(text in layer for layer in told[1:]), text


# What is refused.


@pytest.mark.parametrize("name", ["temp_location", "staging_location", "template"])
def test_a_bucket_that_is_not_there_is_refused_and_nothing_is_written(emulator, name):
    before = set(blobs(_BUCKET))
    with pytest.raises(UserError, match=rf"runner\.{name}: there is no bucket gs://nobodys-bucket; "):
        stage(settings(f"runner.template=gs://{_BUCKET}/x/y", f"runner.{name}=gs://nobodys-bucket/folder"))
    assert set(blobs(_BUCKET)) == before


def test_a_project_that_beam_takes_for_wrong_is_one_line(emulator):
    with pytest.raises(UserError, match=r"runner=dataflow: Invalid Project ID \(12345\)"):
        stage(settings(f"runner.template=gs://{_BUCKET}/x/y", "runner.project='12345'"))


def test_a_store_that_is_not_there_is_one_line(emulator, monkeypatch):
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", "http://127.0.0.1:1")
    with pytest.raises(UserError, match=rf"runner\.temp_location: gs://{_BUCKET} cannot be used: "):
        CHECKS["buckets"](settings().runner)


def test_what_is_there_is_told(emulator):
    runner = settings(f"runner.template=gs://{_BUCKET}/x/y").runner
    assert {what: check(runner) for what, check in CHECKS.items()} == {
        "beam for google cloud": f"apache-beam[gcp] {beam.version.__version__}",
        "credentials": "none, as runner.options says",
        "buckets": f"gs://{_BUCKET}",
    }
