"""Jobs for Google Cloud Dataflow: what Beam is told, what is staged, what must be there before.

A job is staged as a pipeline, a wheel of the wrongturn that submits it and, where no image has them, a list of what
else its workers need. Nothing of the environment goes there: no key, no password, no state of the main module, no list
of what is installed here.
"""

import contextlib
import importlib
import importlib.metadata
import logging
import re
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from apache_beam.options.pipeline_options import GoogleCloudOptions, PipelineOptions
from apache_beam.options.pipeline_options_validator import PipelineOptionsValidator
from apache_beam.runners.runner import PipelineResult
from packaging.requirements import Requirement

from pipelines.errors import UserError
from pipelines.runners.flink import ClusterError
from pipelines.runners.package import installation, make_wheel
from pipelines.runners.settings import Dataflow
from schemas import Record

_LOG = logging.getLogger(__name__)
_EXTRAS = ("redis", "gcs")
"""Of wrongturn, that workers need: the journal's client and the file system's."""
_ASK_SECS = 20.0
"""Longest time for one question to Cloud Storage."""
_CANCEL_SECS = 900.0
"""Longest time for a job to end that was cancelled: machines are given back first."""
_LOOK_SECS = 5.0
_LOCATIONS = ("temp_location", "staging_location", "template")
_BUCKET = re.compile(r"[a-z0-9][a-z0-9._-]+[a-z0-9]")
"""Names that Beam takes for a bucket's: for others it makes a bucket of its own and stages there."""

_MAY_WRITE = (
    "see that the credentials may write there (roles/storage.objectUser and storage.buckets.get) and that Cloud "
    "Storage can be reached"
)
_MAY_RUN = "see that the credentials may run jobs there (roles/dataflow.developer) and that the service can be reached"
_ENDED = ("JOB_STATE_DONE", "JOB_STATE_FAILED", "JOB_STATE_CANCELLED", "JOB_STATE_UPDATED", "JOB_STATE_DRAINED")


class Staged(Record):
    """A job that lies ready and does not run."""

    template: str
    """gs:// path of its description."""
    command: str
    """What starts it."""


def dataflow_options(settings: Dataflow, job_name: str, wheel: Path, requirements: Path | None = None) -> list[str]:
    """Options of a job for Dataflow.

    Args:
      settings: where it runs, on what.
      job_name: as the service shows it.
      wheel: our package. Workers install it over the one that their image has: they run what the submitter runs, and
        the image gives the dependencies.
      requirements: what workers install besides, where no image of ours has it.
    """
    staged_to = settings.staging_location or f"{settings.temp_location.rstrip('/')}/staging"
    given = {
        "template_location": settings.template,
        "sdk_container_image": settings.sdk_container_image,
        "num_workers": settings.num_workers,
        "max_num_workers": settings.max_num_workers,
        "machine_type": settings.machine_type,
        "service_account_email": settings.service_account_email,
        "subnetwork": settings.subnetwork,
        "requirements_file": requirements,
    }
    return [
        "--runner=DataflowRunner",
        f"--job_name={job_name}",
        f"--project={settings.project}",
        f"--region={settings.region}",
        f"--temp_location={settings.temp_location}",
        f"--staging_location={staged_to}",
        *(f"--{name}={value}" for name, value in given.items() if value),
        f"--extra_package={wheel}",
        # Workers find what is on the list; Beam would download it here and send it along.
        "--requirements_cache=skip",
        # On Dataflow Beam pickles the main module with all its variables unless it is told not to.
        "--no_save_main_session",
        # The output of `pip freeze` names folders of this machine, and URLs with whatever stands in them.
        "--experiments=disable_logging_submission_environment",
        *settings.options,
    ]


@contextlib.contextmanager
def staging(settings: Dataflow, job_name: str) -> Iterator[list[str]]:
    """Options of jobs, with the files that they name, which are there as long as the context lasts.

    A job of this name that goes on is cancelled first, unless it is a template that is wanted: whoever started it is
    gone, for its folder was free, and the service starts no second one of a name.

    Raises:
      UserError: something is missing here or on Google Cloud, Beam takes an option for wrong, or the service refuses
        what is asked of it inside of the context.
    """
    for check in CHECKS.values():
        check(settings)
    with tempfile.TemporaryDirectory(prefix="wrongturn-") as folder:
        wheel, requirements = make_wheel(Path(folder)), None
        if not settings.sdk_container_image:
            requirements = Path(folder) / "requirements.txt"
            requirements.write_text("".join(f"{each}\n" for each in extra_requirements()), encoding="utf-8")
        words = dataflow_options(settings, job_name, wheel, requirements)
        _validate(words)
        with _explained(f"runner=dataflow: project {settings.project}", _MAY_RUN, _service_errors()):
            if not settings.template:
                cancel_earlier(words, job_name)
            yield words


def stage_template(
    submit: Callable[[Sequence[int]], PipelineResult], settings: Dataflow, job_name: str, shards: Sequence[int]
) -> Staged:
    """Stages the job that fills some shards and writes its description to `settings.template`; runs nothing.

    Args:
      submit: builds the graph of the shards and hands it to Beam with the options of `staging`.
      settings: with a template.
      job_name: of the job that the command starts.
      shards: their numbers.

    Raises:
      UserError: Cloud Storage takes it not.
    """
    with _explained(f"runner.template: {settings.template}", _MAY_WRITE, (*_service_errors(), OSError)):
        submit(shards)
    command = (
        f"gcloud dataflow jobs run {job_name} --gcs-location={settings.template} --project={settings.project} "
        f"--region={settings.region}"
    )
    return Staged(template=settings.template, command=command)


def extra_requirements() -> list[str]:
    """What workers need besides the wheel's own requirements, as `requirements.txt` has it."""
    found = map(Requirement, installation().requires or ())
    return sorted(f"{each.name}{each.specifier}" for each in found if _is_of_extras(each))


def _is_of_extras(requirement: Requirement) -> bool:
    marker = requirement.marker
    return bool(
        marker and not marker.evaluate({"extra": ""}) and any(marker.evaluate({"extra": extra}) for extra in _EXTRAS)
    )


def _validate(words: Sequence[str]) -> None:
    """Raises UserError for what Beam would refuse when the graph is there."""
    from apache_beam.runners.dataflow.dataflow_runner import DataflowRunner

    if errors := PipelineOptionsValidator(PipelineOptions(list(words)), DataflowRunner()).validate():
        raise UserError(f"runner=dataflow: {' '.join(str(errors[0]).split())}")


def find_packages(settings: Dataflow) -> str:
    """Looks for Beam's part for Google Cloud; says its version.

    Raises:
      ClusterError: it is not installed.
    """
    del settings
    try:
        for name in ("google.auth", "google.cloud.storage", "google.cloud.dataflow_v1beta3"):
            importlib.import_module(name)
    except ImportError as error:
        raise ClusterError(
            f"runner=dataflow needs Beam's part for Google Cloud ({error.msg}): pip install 'wrongturn[dataflow]'"
        ) from error
    return f"apache-beam[gcp] {importlib.metadata.version('apache-beam')}"


def find_credentials(settings: Dataflow) -> str:
    """Looks for credentials as Google's libraries do; says of which kind they are.

    Raises:
      ClusterError: there are none.
    """
    if _is_anonymous(settings):
        return "none, as runner.options says"
    errors = importlib.import_module("google.auth.exceptions")
    try:
        # Beam would look for them five times, half a minute long, and then go on without.
        credentials, _ = importlib.import_module("google.auth").default()
    except errors.DefaultCredentialsError as error:
        raise ClusterError(
            "runner=dataflow: no credentials for Google Cloud are found here; run `gcloud auth application-default "
            "login`, or set GOOGLE_APPLICATION_CREDENTIALS to the path of a service account's key"
        ) from error
    return type(credentials).__module__.removeprefix("google.")


def find_buckets(settings: Dataflow) -> str:
    """Looks for the buckets that are written to; names them.

    Raises:
      ClusterError: one is not there or cannot be asked for, or its name is none.
    """
    if settings.template and not re.fullmatch(r"gs://[^/]+/.*[^/]", settings.template):
        raise ClusterError(f"runner.template must name a file such as {settings.template.rstrip('/')}/wrongturn")
    storage = importlib.import_module("google.cloud.storage")
    client = storage.Client.create_anonymous_client() if _is_anonymous(settings) else storage.Client(settings.project)
    buckets: dict[str, str] = {}
    for name in _LOCATIONS:
        if location := getattr(settings, name):
            buckets.setdefault(location.split("/")[2], name)
    for bucket, name in buckets.items():
        if not _BUCKET.fullmatch(bucket):
            raise ClusterError(
                f"runner.{name}: a bucket's name has at least three characters and ends in a letter or digit, got "
                f"{bucket!r}"
            )
        with _explained(f"runner.{name}: gs://{bucket}", _MAY_WRITE, (*_service_errors(), OSError)):
            found = client.lookup_bucket(bucket, timeout=_ASK_SECS, retry=None)
        if found is None:
            raise ClusterError(
                f"runner.{name}: there is no bucket gs://{bucket}; make it with `gcloud storage buckets create "
                f"gs://{bucket} --project={settings.project} --location={settings.region}`, or correct the name"
            )
    return ", ".join(f"gs://{bucket}" for bucket in buckets)


CHECKS: dict[str, Callable[[Dataflow], str]] = {
    "beam for google cloud": find_packages,
    "credentials": find_credentials,
    "buckets": find_buckets,
}
"""What must be there before a job is staged: each says what it has found, or raises."""


def _is_anonymous(settings: Dataflow) -> bool:
    """Whether Beam is told to ask without credentials, as emulators are."""
    return "--no_auth" in settings.options


def cancel_earlier(words: Sequence[str], job_name: str) -> None:
    """Cancels jobs of a name that go on, and returns when they have ended.

    Args:
      words: options that say where they run.
      job_name: theirs.

    Raises:
      ClusterError: one does not end.
    """
    api = importlib.import_module("google.cloud.dataflow_v1beta3")
    options = PipelineOptions(list(words))
    client = importlib.import_module("apache_beam.runners.dataflow.internal.apiclient").DataflowApplicationClient(
        options
    )
    cloud = options.view_as(GoogleCloudOptions)
    active = api.ListJobsRequest(
        project_id=cloud.project, location=cloud.region, filter=api.ListJobsRequest.Filter.ACTIVE
    )
    # Beam's own look-up by name turns pages for ever and sees no job that has not begun.
    for job in [job for job in client._jobs_client.list_jobs(active) if job.name == job_name]:
        _LOG.warning("cancelling the job %s (%s), which an earlier start of this command has left", job_name, job.id)
        client.modify_job_state(job.id, "JOB_STATE_CANCELLED")
        began = time.monotonic()
        while client.get_job(job.id).current_state.name not in _ENDED:
            if time.monotonic() - began > _CANCEL_SECS:
                raise ClusterError(
                    f"runner=dataflow: the job {job.id} of an earlier start does not end; see "
                    f"`gcloud dataflow jobs show {job.id} --region={cloud.region}`, and give this command again then"
                )
            time.sleep(_LOOK_SECS)


def _service_errors() -> tuple[Any, ...]:
    """What Google's libraries raise, whatever the service."""
    return (
        importlib.import_module("google.api_core.exceptions").GoogleAPIError,
        importlib.import_module("google.auth.exceptions").GoogleAuthError,
    )


@contextlib.contextmanager
def _explained(what: str, remedy: str, kinds: tuple[Any, ...]) -> Iterator[None]:
    """Makes a line with a remedy of errors of some kinds. Among OSError is what `requests` and Beam raise."""
    try:
        yield
    except kinds as error:
        raise ClusterError(f"{what} cannot be used: {' '.join(str(error).split())[:300]}; {remedy}") from error
