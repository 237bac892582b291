"""`wrongturn evaluate`: a critic against labelled solutions."""

from pipelines.evaluate.runner import Options, Result, Watcher, evaluate

__all__ = ["Options", "Result", "Watcher", "evaluate"]
