"""The flex template: what its parameters take, what the launcher makes of them, where a worker's secrets come from."""

import json
import re

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from pipelines.config import compose
from pipelines.runners.settings import Dataflow
from tests.runners.deployed import (
    GIVEN,
    OF_SERVICE,
    PARAMETERS,
    REQUIRED,
    TEMPLATE,
    load,
    text_of,
)


def test_the_template_says_of_every_parameter_what_the_service_asks_for():
    assert set(TEMPLATE) <= {"name", "description", "parameters", "streaming"}
    assert TEMPLATE["streaming"] is False
    assert list(PARAMETERS) == [each["name"] for each in TEMPLATE["parameters"]], "no name twice"
    fields = {"name", "label", "helpText", "isOptional", "regexes", "paramType", "defaultValue"}
    for name, parameter in PARAMETERS.items():
        assert set(parameter) <= fields, name
        assert {"name", "label", "helpText", "regexes"} <= set(parameter), name
        assert re.fullmatch(r"[a-z_]+", name), "a name that an option can have"
        if "defaultValue" in parameter:
            assert parameter["isOptional"], name
            assert re.fullmatch(parameter["regexes"][0], parameter["defaultValue"]), name


def test_every_parameter_takes_a_value_that_is_meant():
    assert set(GIVEN) == set(PARAMETERS)
    for name, value in GIVEN.items():
        for regex in PARAMETERS[name]["regexes"]:
            assert re.fullmatch(regex, value), name


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("out", "/tmp/out"),
        ("out", "gs://bucket"),
        ("journal", "redis://:secret@10.0.0.3:6379/0"),
        ("journal", "/data/journal.sqlite"),
        ("engine__url", "http://me:secret@host"),
        ("engine__url", "host:8000"),
        ("engine__url", "http://host?key=secret"),
        ("engine", "llama_cpp"),
        ("seed", "-1"),
        ("runner__max_in_flight", "0"),
    ],
)
def test_a_value_that_cannot_be_right_is_refused_by_the_service(name, value):
    assert not all(re.fullmatch(regex, value) for regex in PARAMETERS[name]["regexes"])


def test_the_launcher_makes_settings_of_the_parameters():
    words = load("launch").overrides([*(f"--{name}={value}" for name, value in GIVEN.items()), *OF_SERVICE])
    settings = compose(words)
    assert (settings.out, settings.journal, settings.seed) == ("gs://bucket/corpus", "redis://10.0.0.3:6379/0", 7)
    assert (settings.engine.url, settings.engine.model) == (GIVEN["engine__url"], "org/Model-7B")
    assert settings.problems.dataset == "my-team/problems"
    assert settings.budget.max_tokens == 1_000_000
    assert settings.actor.temperature == 0.7
    assert settings.search == compose(["search=omegaprm"]).search
    runner = settings.runner
    assert isinstance(runner, Dataflow)
    assert (runner.project, runner.region, runner.max_in_flight) == ("my-project", "europe-west4", 64)
    assert (runner.temp_location, runner.staging_location) == ("gs://bucket/temp", "gs://bucket/staging")
    assert runner.template == "gs://bucket/staging/template_launches/1/job_object"
    assert (runner.sdk_container_image, runner.max_num_workers) == ("REGISTRY/wrongturn-dataflow:VERSION", 5)
    assert runner.options == ("--labels={'goog-dataflow-provided-template-type': 'flex'}",)


def test_a_value_is_what_was_given_whatever_it_looks_like():
    quoted, parse = load("launch")._quoted, OverridesParser.create().parse_override
    values = (
        *("it's", "a,b", "[x]", "a b", "back\\slash", "\\'", "ends in \\", "x=y", "null", "1.5.2", "'", "$5", "-", ""),
    )
    for value in values:
        assert parse(f"key={quoted(value)}").value() == value
    for value, number in {"7": 7, "-7": -7, "0.5": 0.5}.items():
        assert parse(f"key={quoted(value)}").value() == number


@pytest.mark.parametrize("name", ["engine__model", "settings", "labels"])
def test_a_parameter_cannot_read_the_launchers_environment(name):
    with pytest.raises(SystemExit, match=f"the parameter {name} may not refer"):
        load("launch").overrides([f"--{name}=x=${{oc.env:WRONGTURN_REDIS_PASSWORD}}"])


def test_what_is_not_given_is_what_the_template_says():
    """The service shows defaults and does not send them."""
    words = load("launch").overrides([*(f"--{name}={value}" for name, value in REQUIRED.items()), *OF_SERVICE])
    spelled = [f"--{name}={one['defaultValue']}" for name, one in PARAMETERS.items() if "defaultValue" in one]
    given = [f"--{name}={value}" for name, value in REQUIRED.items()]
    assert compose(words) == compose(load("launch").overrides([*spelled, *given, *OF_SERVICE]))


@pytest.mark.parametrize("argument", ["out=x", "-x", "--", "--=x"])
def test_the_launcher_refuses_what_is_no_option(argument):
    with pytest.raises(SystemExit):
        load("launch").overrides([argument])


def test_the_spec_names_an_image_of_the_dockerfile():
    spec = json.loads(text_of("dataflow-spec.json"))
    assert spec["sdkInfo"] == {"language": "PYTHON"}
    assert spec["image"] == spec["defaultEnvironment"]["sdkContainerImage"] == "REGISTRY/wrongturn-dataflow:VERSION"
    assert f"--target dataflow -t {spec['image']}" in text_of("Dockerfile")


@pytest.mark.stores
@pytest.mark.filterwarnings("ignore")
def test_google_reads_the_template_and_the_spec():
    dataflow = pytest.importorskip("google.cloud.dataflow_v1beta3")
    spec = json.loads(text_of("dataflow-spec.json")) | {"metadata": TEMPLATE}
    read = dataflow.ContainerSpec.from_json(json.dumps(spec), ignore_unknown_fields=False)
    assert [each.name for each in read.metadata.parameters] == list(PARAMETERS)
    assert read.sdk_info.language == dataflow.SDKInfo.Language.PYTHON


# Secrets on Dataflow.


def test_a_worker_gets_the_secrets_that_its_image_names(monkeypatch):
    start, asked = load("start"), []
    monkeypatch.setenv(
        "WRONGTURN_SECRETS",
        "MY_KEY=projects/p/secrets/key/versions/3 WRONGTURN_REDIS_PASSWORD=projects/p/secrets/redis/versions/latest",
    )
    monkeypatch.delenv("MY_KEY", raising=False)
    monkeypatch.setenv("WRONGTURN_REDIS_PASSWORD", "there already")

    def get(place):
        asked.append(place)
        return "the key"

    with monkeypatch.context() as patch:
        patch.setattr(start, "fetch", get)
        patch.setattr(start.os, "environ", dict(start.os.environ))
        start.add_secrets(get)
        assert start.os.environ["MY_KEY"] == "the key"
        assert start.os.environ["WRONGTURN_REDIS_PASSWORD"] == "there already"
    assert asked == ["projects/p/secrets/key/versions/3"]


@pytest.mark.parametrize("entry", ["MY_KEY=sk-canary123", "MY_KEY", "my-key=projects/p/secrets/s/versions/1"])
def test_a_secret_in_place_of_its_name_is_refused_and_not_repeated(monkeypatch, entry):
    start = load("start")
    monkeypatch.setenv("WRONGTURN_SECRETS", entry)
    with pytest.raises(SystemExit, match="must be NAME=projects/PROJECT") as caught:
        start.add_secrets(lambda place: "never")
    assert "canary" not in str(caught.value)


def test_the_worker_becomes_beams_boot_with_its_arguments(monkeypatch):
    start, became = load("start"), []
    monkeypatch.delenv("WRONGTURN_SECRETS", raising=False)
    monkeypatch.setattr(start.os, "execv", lambda program, words: became.append((program, words)))
    start.main(["--id=1", "--provision_endpoint=localhost:1"])
    boot = "/opt/apache/beam/boot"
    assert became == [(boot, [boot, "--id=1", "--provision_endpoint=localhost:1"])]
