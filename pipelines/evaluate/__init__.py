"""`wrongturn evaluate`: a critic against labelled solutions."""

from pipelines.evaluate.runner import Result, Watcher, evaluate
from pipelines.evaluate.task import Options

__all__ = ["Options", "Result", "Watcher", "evaluate"]
