"""What tests of every layer share: where the real data lies, and small values to build on."""

import os
import signal
from pathlib import Path

import pytest


def pytest_configure() -> None:
    """Has SIGINT interrupt: a shell that starts the suite in the background has it ignored, and tests send it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real problems, trees and critiques; absent on most machines."""
    root = os.environ.get("WRONGTURN_SHARED", Path(__file__).parents[1].parent / "shared")
    path = Path(root) / "data"
    if not path.is_dir():
        pytest.skip(f"needs the shared data at {path} (or WRONGTURN_SHARED)")
    return path
