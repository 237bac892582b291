"""The local runner: one worker in this process."""

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.portability.fn_api_runner import FnApiRunner

from pipelines.coders import register_coders
from pipelines.graph import build
from pipelines.plan import Plan
from pipelines.worker import WorkerSpec


def run_directly(plan: Plan, spec: WorkerSpec, out: str, index: int) -> None:
    """Runs the graph over one shard: memory holds no more than that.

    Raises:
      BudgetReached: a limit was reached before the shard was done; nothing of it is written.
    """
    register_coders()
    # The runner is named: where there is internet, Beam's "DirectRunner" would download and start another one.
    options = PipelineOptions(["--direct_num_workers=1", "--direct_running_mode=in_memory"])
    with beam.Pipeline(runner=FnApiRunner(), options=options) as pipeline:
        build(pipeline, plan, spec, out=out, shards=[index])
