"""What lies in `deploy/`, read for tests."""

import importlib.util
import json
import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
VERSIONED = re.compile(r"[\w./-]+:(\d[\w.-]*|VERSION)")
"""An image with a tag that says a version."""


def text_of(name):
    return (DEPLOY / name).read_text(encoding="utf-8")


def instructions():
    """Instructions of the Dockerfile as (name, rest), lines that go on joined; comments left out."""
    lines = re.sub(r"(?m)^\s*#.*\n", "", text_of("Dockerfile"))
    joined = re.sub(r"\\\n\s*", "", lines)
    return [tuple(line.split(maxsplit=1)) for line in joined.splitlines() if line.strip()]


def stages():
    """The Dockerfile's stages by name: image or stage it begins with, and its instructions."""
    found = {}
    for name, rest in instructions():
        if name == "FROM":
            image, _, stage = re.fullmatch(r"(\S+)( AS (\S+))?", rest).groups()
            found[stage] = (image, [])
        else:
            found[list(found)[-1]][1].append((name, rest))
    return found


def own(stage, name):
    """An instruction's last value in a stage or in those that it is built on."""
    image, inside = stages()[stage]
    values = [rest for instruction, rest in inside if instruction == name]
    return values[-1] if values else own(image, name) if image in stages() else None


def load(name):
    sys.path.insert(0, str(DEPLOY))
    try:
        spec = importlib.util.spec_from_file_location(f"deploy_{name}", DEPLOY / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(DEPLOY))
        sys.modules.pop("start", None)
    return module


TEMPLATE = json.loads(text_of("dataflow-template.json"))
PARAMETERS = {each["name"]: each for each in TEMPLATE["parameters"]}
GIVEN = {
    "out": "gs://bucket/corpus",
    "journal": "redis://10.0.0.3:6379/0",
    "problems": "hub",
    "problems__dataset": "my-team/problems",
    "engine": "vllm",
    "engine__url": "http://10.0.0.7:8000,http://10.0.0.8:8000",
    "engine__model": "org/Model-7B",
    "actor": "plain",
    "panel": "full",
    "seed": "7",
    "budget__max_tokens": "1000000",
    "runner__max_in_flight": "64",
    "settings": "search=omegaprm actor.temperature=0.7",
}
"""A value for each parameter."""
REQUIRED = {name: value for name, value in GIVEN.items() if not PARAMETERS[name].get("isOptional")}
OF_SERVICE = [
    "--runner=DataflowRunner",
    "--project=my-project",
    "--region=europe-west4",
    "--job_name=first-corpus",
    "--temp_location=gs://bucket/temp",
    "--staging_location=gs://bucket/staging",
    "--template_location=gs://bucket/staging/template_launches/1/job_object",
    "--sdk_container_image=REGISTRY/wrongturn-dataflow:VERSION",
    "--max_num_workers=5",
    "--labels={'goog-dataflow-provided-template-type': 'flex'}",
]
"""What the launcher adds."""
