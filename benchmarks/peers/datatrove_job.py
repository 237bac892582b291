"""The flat job through datatrove's InferenceRunner. Runs in datatrove's own environment; see `benchmarks.peers`.

    python datatrove_job.py JOB.json [--count]

JOB.json: `url` of the server without `/v1`, `model`, `problems` (id and prompt each), `num_samples` of each, `out` (a
folder) and `setup`, one of SETUPS. The last line printed is JSON: `version`, `rows_out` (samples with a text), `empty`
(samples written without one), `reported` (samples that the tool itself counts as failed), `collapsed` (problems of
which two samples are one text). `--count` runs nothing and counts what an earlier start left in `out`.
"""

import asyncio
import gzip
import importlib.metadata
import json
import random
import sys
import zlib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

SETUPS = ("defaults", "checkpoints", "tuned", "node")
"""`defaults`: as in its README. `checkpoints`: with `checkpoints_local_dir`, which lets the next start go on. `tuned`:
besides, 64 requests in flight, and a rollout function that catches whatever `generate` raises and asks again after a
pause, for half a minute in all, then gives the sample up. `node`: as `checkpoints`, all samples of a problem in one
rollout, as the node of a search tree asks for them."""

_IN_FLIGHT = 64
_PAUSES_SECS = (0.5, 1.0, 2.0, 4.0, 8.0, 8.0, 8.0)

Generate = Callable[[dict[str, Any]], Awaitable[Any]]


def main() -> None:
    """Runs the job, then says what is on disk, even where the tool ended with an exception."""
    job = json.loads(Path(sys.argv[1]).read_text())
    try:
        if "--count" not in sys.argv:
            _run(job)
    finally:
        print(json.dumps(count(Path(job["out"]))), flush=True)


def _payload(prompt: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": prompt}], "max_tokens": 2048, "temperature": 1.0}


async def _once(document: Any, generate: Generate) -> Any:
    return (await generate(_payload(document.text))).text


async def _patient(document: Any, generate: Generate) -> Any:
    from datatrove.pipeline.inference.types import InferenceError, ServerError

    for pause in (*_PAUSES_SECS, 0.0):
        try:
            return (await generate(_payload(document.text))).text
        except (InferenceError, ServerError, OSError):
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))
    return None


def _node(num_samples: int) -> Callable[[Any, Generate], Awaitable[Any]]:
    async def rollout(document: Any, generate: Generate) -> Any:
        return await asyncio.gather(*(_once(document, generate) for _ in range(num_samples)))

    return rollout


def _run(job: dict[str, Any]) -> None:
    from datatrove.data import Document
    from datatrove.executor.local import LocalPipelineExecutor
    from datatrove.pipeline.inference.run_inference import InferenceConfig, InferenceRunner
    from datatrove.pipeline.writers import JsonlWriter

    out, setup = Path(job["out"]), job["setup"]
    config = InferenceConfig(
        server_type="endpoint",
        endpoint_url=job["url"],
        model_name_or_path=job["model"],
        rollouts_per_document=1 if setup == "node" else job["num_samples"],
        **({"max_concurrent_generations": _IN_FLIGHT} if setup == "tuned" else {}),
    )
    runner = InferenceRunner(
        rollout_fn=_node(job["num_samples"]) if setup == "node" else _patient if setup == "tuned" else _once,
        config=config,
        output_writer=JsonlWriter(str(out / "rows"), output_filename="${rank}_chunk_${chunk_index}.jsonl"),
        **({} if setup == "defaults" else {"checkpoints_local_dir": str(out / "checkpoints"), "records_per_chunk": 50}),
        skip_bad_requests=setup != "defaults",
    )
    documents = [Document(text=problem["prompt"], id=problem["id"]) for problem in job["problems"]]
    LocalPipelineExecutor(pipeline=[documents, runner], logging_dir=str(out / "logs"), tasks=1).run()


def count(out: Path) -> dict[str, Any]:
    """What is on disk, half-written files as far as they can be read."""
    rows: dict[str, list[str | None]] = {}
    for file in sorted((out / "rows").glob("*.jsonl.gz")):
        for line in _lines(file):
            row = json.loads(line)
            found = row["metadata"]["rollout_results"]
            rows[row["id"]] = found[0] if found and isinstance(found[0], list) else found
    texts = {name: [text for text in found if text] for name, found in rows.items()}
    return {
        "version": importlib.metadata.version("datatrove"),
        "rows_out": sum(map(len, texts.values())),
        "reported": _reported(out / "logs" / "stats.json"),
        "collapsed": sum(len(set(found)) < len(found) for found in texts.values()),
    }


def _lines(file: Path) -> list[str]:
    """Whole lines of a file that may end anywhere."""
    text = b""
    with file.open("rb") as raw, gzip.GzipFile(fileobj=raw) as stream:
        try:
            while piece := stream.read1(2**16):
                text += piece
        except (EOFError, zlib.error, gzip.BadGzipFile):
            pass
    return [line for line in text.decode(errors="replace").splitlines() if line.endswith("}")]


def _reported(stats: Path) -> int:
    """Failed rollouts by the tool's own statistics, which it writes at the end of a run that ends well."""
    if not stats.is_file():
        return 0
    said = (step["stats"].get("failed_rollouts", 0) for step in json.loads(stats.read_text()))
    return sum(int(value["total"] if isinstance(value, dict) else value) for value in said)


if __name__ == "__main__":
    main()
