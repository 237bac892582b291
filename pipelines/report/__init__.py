"""A run as one HTML page that needs nothing else: what came of it, what it cost, and everything to leaf through."""

from pipelines.report.page import write_report

__all__ = ["write_report"]
