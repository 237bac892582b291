"""llama.cpp holds a critic's walk to its patterns on both of its routes, whatever characters a step has."""

import json
import re

import pytest

from annotators.units import critique_schema, parse_critique
from tests.engines import subjects
from tests.engines.contract import Subject

pytestmark = [pytest.mark.model, pytest.mark.slow, pytest.mark.timeout(600)]

TEXTS = (
    "7 + 8 = 14",
    "a[1] = b{2}",
    "[x] - y",
    "2^3 - 1 = 7",
    "^",
    "x|y $5.00 (a*b)?",
    "a/b & c ~ d # e",
    r"f(x) = \frac{1}{2}",
    'He "ran" 3 miles',
    "5 \u00e9 \u2192 3",
)


@pytest.fixture(scope="module")
def llama_cpp():
    with subjects.llama_cpp() as by_style:
        yield by_style


@pytest.mark.parametrize("style", ["raw", "chat"])
@pytest.mark.parametrize("text", TEXTS)
def test_an_error_cannot_repeat_its_step(llama_cpp: dict[str, Subject], style, text):
    """The prompt shows a model nothing but critiques that do: one that may write any string goes on like that."""
    steps = (f"Step 1: {text}\n", "Answer: 1\n")
    wrong = json.loads(critique_schema(steps, "walk"))["anyOf"][1]
    unit = {"step": 1, "flaw": text, "quote": text, "kind": "error"}
    critique = {"units": [unit], "first_wrong_step": 1, "verdict": "incorrect"}
    prompt = (json.dumps(critique, ensure_ascii=False, separators=(",", ":")) + "\n") * 4
    written = llama_cpp[style].text(prompt=prompt, json_schema=json.dumps(wrong), max_tokens=200)
    (said,) = parse_critique(written, steps).units
    pattern = wrong["properties"]["units"]["prefixItems"][0]["properties"]["flaw"]["pattern"]
    assert re.search(pattern, json.loads(written)["units"][0]["flaw"])
    assert said.flaw != text
