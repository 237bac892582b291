"""The flat job through a distilabel pipeline. Runs in distilabel's own environment; see `benchmarks.peers`.

    python distilabel_job.py JOB.json [--count]

What JOB.json holds and what is printed is as in `datatrove_job.py`.
"""

import importlib.metadata
import json
import sys
from pathlib import Path
from typing import Any

SETUPS = ("defaults", "tuned", "grouped", "uncached")
"""`defaults`: as in its README, 50 problems a batch. `tuned`: one problem a batch, since a failed call costs its whole
batch, eight replicas to have more than one batch going, and ten retries of a call instead of six. `grouped`: besides,
the samples of a problem in one row (`group_generations`). `uncached`: as `tuned`, without the cache of earlier starts,
which its issue 1065 gives as the way round a second start that does not end."""

_REPLICAS = 8


def main() -> None:
    """Runs the job, then says what is on disk, even where the tool ended with an exception."""
    job = json.loads(Path(sys.argv[1]).read_text())
    try:
        if "--count" not in sys.argv:
            _run(job)
    finally:
        print(json.dumps(count(Path(job["out"]), job["num_samples"])), flush=True)


def _run(job: dict[str, Any]) -> None:
    from distilabel.models import OpenAILLM
    from distilabel.pipeline import Pipeline
    from distilabel.steps import LoadDataFromDicts, StepResources
    from distilabel.steps.tasks import TextGeneration

    out, is_tuned = Path(job["out"]), job["setup"] != "defaults"
    data = [{"id": problem["id"], "instruction": problem["prompt"]} for problem in job["problems"]]
    with Pipeline(name="flat", cache_dir=out / "cache") as pipeline:
        llm = OpenAILLM(
            model=job["model"],
            base_url=f"{job['url']}/v1",
            api_key="none",
            generation_kwargs={"max_new_tokens": 2048, "temperature": 1.0},
            **({"max_retries": 10} if is_tuned else {}),
        )
        tuning = {"input_batch_size": 1, "resources": StepResources(replicas=_REPLICAS)} if is_tuned else {}
        tuning |= {"group_generations": True} if job["setup"] == "grouped" else {}
        load = LoadDataFromDicts(data=data)
        load >> TextGeneration(llm=llm, num_generations=job["num_samples"], **tuning)
    made = pipeline.run(use_cache=job["setup"] != "uncached")
    made["default"]["train"].to_json(str(out / "rows.jsonl"))


def count(out: Path, num_samples: int) -> dict[str, Any]:
    """What is on disk."""
    file = out / "rows.jsonl"
    sets: dict[str, list[str | None]] = {}
    for line in file.read_text().splitlines() if file.is_file() else []:
        row = json.loads(line)
        found = row["generation"]
        sets.setdefault(row["id"], []).extend(found if isinstance(found, list) else [found])
    texts = {name: [text for text in found if text] for name, found in sets.items()}
    return {
        "version": importlib.metadata.version("distilabel"),
        "rows_out": sum(map(len, texts.values())),
        # One row without a text stands for all samples of its problem.
        "reported": sum(num_samples - len(texts[name]) for name, found in sets.items() if not all(found)),
        "collapsed": sum(len(set(found)) < len(found) for found in texts.values()),
    }


if __name__ == "__main__":
    main()
