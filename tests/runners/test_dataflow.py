"""What Dataflow is told, and what is refused before anything is staged. No cloud, and no package of it, is needed."""

import importlib.metadata
import types
from pathlib import Path

import pytest
from apache_beam.options.pipeline_options import (
    DebugOptions,
    GoogleCloudOptions,
    PipelineOptions,
    SetupOptions,
    StandardOptions,
    WorkerOptions,
)

from pipelines.errors import UserError
from pipelines.runners import dataflow
from pipelines.runners.checks import examine_runner
from pipelines.runners.dataflow import dataflow_options, extra_requirements, find_buckets, stage_template, staging
from pipelines.runners.settings import Dataflow

WHEEL = Path("/somewhere/wrongturn-1.0-py3-none-any.whl")


def settings(**fields):
    given = {"project": "my-project", "region": "europe-west4", "temp_location": "gs://bucket/temp"}
    return Dataflow(**given | fields)


def parsed(words):
    options = PipelineOptions(words)
    known = options.get_all_options(drop_default=True, retain_unknown_options=True)
    assert set(known) <= set(PipelineOptions([]).get_all_options()), "Beam knows an option by no name of ours"
    return options


def test_every_setting_is_an_option_that_beam_knows():
    options = parsed(
        dataflow_options(
            settings(
                staging_location="gs://other/staging",
                sdk_container_image="REGISTRY/wrongturn:1.0",
                num_workers=3,
                max_num_workers=20,
                machine_type="n2-standard-4",
                service_account_email="worker@my-project.iam.gserviceaccount.com",
                subnetwork="regions/europe-west4/subnetworks/inner",
                template="gs://bucket/templates/one",
            ),
            "wrongturn-1",
            WHEEL,
        )
    )
    cloud, worker = options.view_as(GoogleCloudOptions), options.view_as(WorkerOptions)
    assert options.view_as(StandardOptions).runner == "DataflowRunner"
    assert (cloud.project, cloud.region, cloud.job_name) == ("my-project", "europe-west4", "wrongturn-1")
    assert (cloud.temp_location, cloud.staging_location) == ("gs://bucket/temp", "gs://other/staging")
    assert cloud.template_location == "gs://bucket/templates/one"
    assert cloud.service_account_email == "worker@my-project.iam.gserviceaccount.com"
    assert (worker.sdk_container_image, worker.machine_type) == ("REGISTRY/wrongturn:1.0", "n2-standard-4")
    assert (worker.num_workers, worker.max_num_workers) == (3, 20)
    assert worker.subnetwork == "regions/europe-west4/subnetworks/inner"


def test_what_is_not_set_is_left_to_dataflow():
    options = parsed(dataflow_options(settings(), "wrongturn-1", WHEEL))
    cloud, worker = options.view_as(GoogleCloudOptions), options.view_as(WorkerOptions)
    assert cloud.staging_location == "gs://bucket/temp/staging"
    assert (cloud.template_location, cloud.service_account_email) == (None, None)
    assert (worker.sdk_container_image, worker.machine_type, worker.subnetwork) == (None, None, None)
    assert (worker.num_workers, worker.max_num_workers) == (None, None)


@pytest.mark.parametrize("image", ["", "REGISTRY/wrongturn:1.0"])
def test_our_wheel_goes_along_and_nothing_of_this_process_does(image):
    options = parsed(dataflow_options(settings(sdk_container_image=image), "wrongturn-1", WHEEL, Path("/r.txt")))
    setup = options.view_as(SetupOptions)
    assert setup.extra_packages == [str(WHEEL)]
    assert setup.requirements_file == "/r.txt"
    assert setup.requirements_cache == "skip"
    assert setup.save_main_session is False
    assert options.view_as(DebugOptions).lookup_experiment("disable_logging_submission_environment")


def test_further_options_come_last_and_add_to_ours():
    given = settings(options=("--no_auth", "--experiments=shuffle_mode=service", "--region=us-east1"))
    options = parsed(dataflow_options(given, "wrongturn-1", WHEEL))
    assert options.view_as(GoogleCloudOptions).no_auth is True
    assert options.view_as(GoogleCloudOptions).region == "us-east1"
    experiments = options.view_as(DebugOptions).experiments
    assert experiments == ["disable_logging_submission_environment", "shuffle_mode=service"]


def test_workers_without_our_image_install_the_journals_client_and_the_file_system(monkeypatch):
    requires = [
        "apache-beam<3,>=2.77",
        "xllamacpp>=2026.10; sys_platform == 'linux'",
        "redis<9,>=5; extra == 'redis'",
        "gcsfs>=2025.1; extra == 'gcs'",
        "s3fs>=2025.1; extra == 's3'",
        "mypy>=1.15; extra == 'dev'",
    ]
    monkeypatch.setattr(dataflow, "installation", lambda: types.SimpleNamespace(requires=requires))
    assert extra_requirements() == ["gcsfs>=2025.1", "redis<9,>=5"]


# Before anything is staged.


class Trouble(Exception):
    """Stands for what Google's libraries raise."""


class Cloud:
    """Google's libraries, with some buckets; `missing` is a module that is not installed."""

    def __init__(self, *buckets, missing="", has_credentials=True, refuses=False):
        self.asked, self.clients = [], []
        self._buckets, self._missing = buckets, missing
        self._has_credentials, self._refuses = has_credentials, refuses

    def import_module(self, name):
        if name == self._missing:
            raise ModuleNotFoundError(f"No module named {name!r}")
        cloud = self

        class Client:
            def __init__(self, project):
                cloud.clients.append(project)

            @classmethod
            def create_anonymous_client(cls):
                return cls("anonymous")

            def lookup_bucket(self, bucket, **_):
                return cloud._lookup(bucket)

        return types.SimpleNamespace(
            default=self._default, DefaultCredentialsError=KeyError, GoogleAuthError=Trouble, GoogleAPIError=Trouble,
            Client=Client,
        )  # fmt: skip

    def _default(self):
        if not self._has_credentials:
            raise KeyError("no credentials")
        return Trouble(), "project"

    def _lookup(self, bucket):
        self.asked.append(bucket)
        if self._refuses:
            raise Trouble("403 the account has\nno access")
        return bucket if bucket in self._buckets else None


@pytest.fixture
def cloud(monkeypatch):
    def install(*buckets, **state):
        modules = Cloud(*buckets, **state)
        monkeypatch.setattr(dataflow.importlib, "import_module", modules.import_module)
        return modules

    return install


def refusal(given):
    with pytest.raises(UserError) as caught, staging(given, "wrongturn-1"):
        pass
    return str(caught.value)


@pytest.mark.parametrize("missing", ["google.auth", "google.cloud.storage", "google.cloud.dataflow_v1beta3"])
def test_without_beams_part_for_google_cloud_it_says_what_to_install(cloud, missing):
    cloud("bucket", missing=missing)
    message = refusal(settings())
    assert "pip install 'wrongturn[dataflow]'" in message
    assert missing in message


@pytest.mark.parametrize("missing", ["google.auth", "google.cloud.storage"])
def test_what_is_looked_at_ends_where_something_is_missing(cloud, missing):
    cloud("bucket", missing=missing)
    (finding,) = examine_runner(settings())
    assert (finding.what, finding.is_well) == ("beam for google cloud", False)
    assert "pip install 'wrongturn[dataflow]'" in finding.found


def test_all_is_looked_at_where_nothing_is_missing(cloud):
    cloud("bucket")
    findings = examine_runner(settings())
    assert [each.what for each in findings if each.is_well] == ["beam for google cloud", "credentials", "buckets"]


def test_without_credentials_it_says_how_to_get_them(cloud):
    cloud("bucket", has_credentials=False)
    assert "gcloud auth application-default login" in refusal(settings())


def test_without_the_bucket_it_says_how_to_make_it(cloud):
    modules = cloud("bucket")
    message = refusal(settings(template="gs://elsewhere/templates/one"))
    assert message.startswith("runner.template: there is no bucket gs://elsewhere; ")
    assert "gcloud storage buckets create gs://elsewhere --project=my-project --location=europe-west4" in message
    assert modules.asked == ["bucket", "elsewhere"]
    assert modules.clients == ["my-project"]


def test_a_bucket_that_may_not_be_used_is_one_line_with_the_reason(cloud):
    cloud("bucket", refuses=True)
    message = refusal(settings())
    assert message.startswith("runner.temp_location: gs://bucket cannot be used: 403 the account has no access; ")


def test_a_name_for_which_beam_would_make_a_bucket_of_its_own_is_refused(cloud):
    modules = cloud("ab", "bucket-")
    for location in ("gs://ab/temp", "gs://bucket-/temp"):
        assert "runner.temp_location: a bucket's name" in refusal(settings(temp_location=location))
    assert modules.asked == []


def test_a_template_needs_the_name_of_a_file(cloud):
    cloud("bucket")
    assert "runner.template must name a file" in refusal(settings(template="gs://bucket"))
    assert "runner.template must name a file" in refusal(settings(template="gs://bucket/folder/"))


def test_an_emulator_is_asked_without_credentials(cloud):
    modules = cloud("bucket", has_credentials=False)
    assert find_buckets(settings(options=("--no_auth",))) == "gs://bucket"
    assert modules.clients == ["anonymous"]


def test_a_template_is_staged_once_and_says_what_starts_it(cloud):
    cloud("bucket")
    submitted = []
    given = settings(template="gs://bucket/templates/one")
    staged = stage_template(submitted.append, given, "wrongturn-1", [0, 3])
    assert submitted == [[0, 3]]
    assert staged.template == "gs://bucket/templates/one"
    assert staged.command == (
        "gcloud dataflow jobs run wrongturn-1 --gcs-location=gs://bucket/templates/one --project=my-project "
        "--region=europe-west4"
    )


@pytest.mark.parametrize("error", [Trouble("quota"), OSError("Could not upload")])
def test_trouble_while_staging_is_one_line(cloud, error):
    cloud("bucket")

    def submit(shards):
        raise error

    with pytest.raises(UserError, match=r"runner\.template: gs://bucket/one cannot be used: "):
        stage_template(submit, settings(template="gs://bucket/one"), "wrongturn-1", [0])


def test_our_own_bugs_stay_what_they_are(cloud):
    cloud("bucket")

    def submit(shards):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        stage_template(submit, settings(template="gs://bucket/one"), "wrongturn-1", [0])


def test_the_version_of_beam_is_told(cloud):
    cloud()
    assert dataflow.find_packages(settings()) == f"apache-beam[gcp] {importlib.metadata.version('apache-beam')}"
