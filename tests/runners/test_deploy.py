"""What a team copies, looked at without a cluster: it parses, fits together, is pinned and holds no secret."""

import configparser
import importlib.metadata
import importlib.util
import json
import re
import shlex

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from pipelines.config import compose
from pipelines.runners.settings import Dataflow
from tests.runners.deployed import (
    DEPLOY,
    OF_SERVICE,
    PARAMETERS,
    ROOT,
    VERSIONED,
    instructions,
    load,
    own,
    stages,
    text_of,
)


def test_nothing_lies_there_that_the_page_does_not_name():
    names = {path.name for path in DEPLOY.iterdir() if path.is_file()}
    assert {name for name in names if f"`{name}`" not in text_of("README.md")} == {"README.md"}


@pytest.mark.parametrize("name", [path.name for path in sorted(DEPLOY.iterdir()) if path.is_file()])
def test_there_is_no_secret_and_nothing_of_one_machine(name):
    text = text_of(name)
    found = re.findall(r"sk-[A-Za-z0-9]{8}|hf_[A-Za-z0-9]{8}|AKIA[A-Z0-9]{8}|BEGIN [A-Z ]*PRIVATE KEY|AIza\w{8}", text)
    assert found == []
    assert not re.search(r"/home/(?!wrongturn\b)\w|/Users/|/root/", text)


def test_the_pages_commands_are_right():
    blocks = re.findall(r"```sh\n(.*?)```", text_of("README.md"), re.DOTALL)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    (run,) = (shlex.split(line)[2:] for line in lines if line.startswith("wrongturn run "))
    assert isinstance(compose(run).runner, Dataflow)
    (launch,) = (line for line in lines if line.startswith("gcloud dataflow flex-template run"))
    parameters = ",".join(re.findall(r"--parameters=(\S+)", launch))
    given = dict(pair.split("=", 1) for pair in parameters.split(","))
    assert {name for name, one in PARAMETERS.items() if not one.get("isOptional")} <= set(given) <= set(PARAMETERS)
    for name, value in given.items():
        assert re.fullmatch(PARAMETERS[name]["regexes"][0], value), name
    settings = compose(load("launch").overrides([*(f"--{name}={value}" for name, value in given.items()), *OF_SERVICE]))
    assert settings.problems.dataset == given["problems__dataset"]
    builds = [re.search(r"docker build -f deploy/Dockerfile (?:--target (\w+) )?-t ", line) for line in lines]
    built = {found[1] or "worker" for found in builds if found}
    assert built == {"worker", "submit", "dataflow"} <= set(stages())


# The images.


def test_every_image_is_pinned_or_a_stage():
    for image, _ in stages().values():
        assert image in stages() or VERSIONED.fullmatch(image), image
    pulled = re.findall(r"--from=(\S+)", text_of("Dockerfile")) + re.findall(r"from=([\w-]+),", text_of("Dockerfile"))
    assert pulled
    assert set(pulled) <= set(stages())


def test_beam_and_python_are_those_of_the_constraints_and_of_setup_cfg():
    """Graphs are pickled by one Python and Beam and read by the other."""
    (beam,) = (image for image, _ in stages().values() if image.startswith("apache/beam"))
    python, version = re.fullmatch(r"apache/beam_python(\d+\.\d+)_sdk:([\d.]+)", beam).groups()
    assert constraints()["apache-beam"] == version
    bases = [image for image, _ in stages().values() if image.startswith("python:")]
    assert len(bases) == 2
    assert {re.match(r"python:(\d+\.\d+)", base)[1] for base in bases} == {python}
    assert Version(python) in Requirement(f"python{setup_cfg()['options']['python_requires']}").specifier


def test_workers_are_not_root():
    assert list(stages())[-1] == "worker", "what is built without --target"
    for stage in ("worker", "submit"):
        user, _, group = own(stage, "USER").partition(":")
        assert int(user) > 0
        assert int(group) > 0


def test_the_images_start_what_there_is():
    assert json.loads(own("worker", "ENTRYPOINT")) == ["/opt/apache/beam/boot"]
    assert ("COPY", "--from=beam /opt/apache/beam /opt/apache/beam") in stages()["base"][1]
    program, script = json.loads(own("dataflow", "ENTRYPOINT"))
    copied = next(rest for name, rest in stages()["dataflow"][1] if name == "COPY" and "start.py" in rest).split()
    assert program == "python"
    assert script == f"{copied[-1]}start.py"
    assert f"FLEX_TEMPLATE_PYTHON_PY_FILE={copied[-1]}launch.py" in [rest for _, rest in stages()["dataflow"][1]]
    (command,) = json.loads(own("submit", "ENTRYPOINT"))
    assert command in {each.name for each in importlib.metadata.entry_points(group="console_scripts")}


def test_what_is_copied_is_there_and_is_all_that_setup_cfg_packs():
    copied = [rest.split() for _, inside in stages().values() for name, rest in inside if name == "COPY"]
    sources = {source for words in copied if not words[0].startswith("--from") for source in words[:-1]}
    assert {source for source in sources if not (ROOT / source).exists()} == set()
    packed = {line.rstrip("*") for line in setup_cfg()["options.packages.find"]["include"].split()}
    assert {source for source in sources if (ROOT / source).is_dir()} == packed
    assert {"setup.cfg", "pyproject.toml", "README.md", "LICENSE"} <= sources


def test_no_secret_is_an_argument_of_a_build():
    arguments = [rest for name, rest in instructions() if name == "ARG"]
    assert arguments == ['WRONGTURN_SECRETS=""']


# The versions.


def setup_cfg():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    return config


def constraints():
    lines = [line for line in text_of("constraints.txt").splitlines() if line and not line.startswith("#")]
    pairs = [re.fullmatch(r"([A-Za-z0-9._-]+)==(\S+)", line) for line in lines]
    assert all(pairs), "every line is NAME==VERSION"
    found = {re.sub(r"[-_.]+", "-", pair[1]).lower(): pair[2] for pair in pairs}
    assert len(found) == len(lines)
    return found


def required():
    """Requirements of wrongturn, and of the extras that the images have."""
    config = setup_cfg()
    extras = re.findall(r"\[([a-z0-9,]+)\]'", text_of("Dockerfile"))
    assert len(set(extras)) == 1, "wheels are made for the extras that are installed"
    blocks = [config["options"]["install_requires"]]
    blocks += [config["options.extras_require"][extra] for extra in extras[0].split(",")]
    return [Requirement(line) for block in blocks for line in block.splitlines() if line and not line.startswith("#")]


def test_every_requirement_is_pinned_at_a_version_that_fits():
    pinned = constraints()
    names = set()
    for requirement in required():
        name = re.sub(r"[-_.]+", "-", requirement.name).lower()
        names.add(name)
        assert Version(pinned[name]) in requirement.specifier, (str(requirement), pinned[name])
    assert {"apache-beam", "redis", "gcsfs", "s3fs", "msgspec"} <= names


@pytest.mark.parametrize("name", ["pytest", "ruff", "mypy", "torch"])
def test_what_only_developers_and_trainers_need_is_in_no_image(name):
    assert name not in constraints()
