"""Stores for tests: one in memory, and emulators of Cloud Storage and S3 on loopback (marker `stores`)."""

import contextlib
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator

import pytest

_UP_SECS = 30
BUCKET = "wrongturn-tests"


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "stores: starts emulators of object stores (needs the extras gcs, s3 and stores)"
    )


@contextlib.contextmanager
def served(*command: str) -> Iterator[str]:
    """URL of a server on loopback; `{port}` in its command is one that was free."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    words = [sys.executable, *(word.format(port=port) for word in command)]
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + _UP_SECS
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                assert process.poll() is None, f"{words} ended with {process.returncode}"
                assert time.monotonic() < deadline, f"{words} does not answer"
                time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(timeout=10)


@pytest.fixture(scope="session")
def gs() -> Iterator[str]:
    """A bucket of an emulated Cloud Storage, as `gs://BUCKET`."""
    pytest.importorskip("gcsfs", reason="needs gcsfs: pip install 'wrongturn[gcs]'")
    pytest.importorskip("gcp_storage_emulator", reason="needs gcp-storage-emulator: pip install 'wrongturn[stores]'")
    start = ("gcp_storage_emulator", "start", "--host=127.0.0.1", "--port={port}", "--in-memory")
    with served("-m", *start, f"--default-bucket={BUCKET}") as url, pytest.MonkeyPatch.context() as patch:
        patch.setenv("STORAGE_EMULATOR_HOST", url)
        # gcsfs asks Google what kind of bucket it is, which needs credentials.
        patch.setenv("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
        # The emulator serves one request at a time, and lets others wait for seconds.
        patch.setattr("pipelines.mirror._AT_ONCE", 1)
        yield f"gs://{BUCKET}"


@pytest.fixture(scope="session")
def s3() -> Iterator[str]:
    """A bucket of an emulated S3, as `s3://BUCKET`."""
    s3fs = pytest.importorskip("s3fs", reason="needs s3fs: pip install 'wrongturn[s3]'")
    pytest.importorskip("moto", reason="needs moto: pip install 'wrongturn[stores]'")
    with served("-m", "moto.server", "-H", "127.0.0.1", "-p", "{port}") as url, pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", url)
        patch.setenv("AWS_ACCESS_KEY_ID", "test")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        s3fs.S3FileSystem().mkdir(BUCKET)
        yield f"s3://{BUCKET}"


@pytest.fixture(
    params=["memory", pytest.param("gs", marks=pytest.mark.stores), pytest.param("s3", marks=pytest.mark.stores)],
    scope="session",
)
def bucket(request: pytest.FixtureRequest) -> str:
    """A bucket of each kind of store."""
    return "memory://bucket" if request.param == "memory" else request.getfixturevalue(request.param)


@pytest.fixture
def out(bucket: str) -> str:
    """A prefix that nothing has."""
    return f"{bucket}/{uuid.uuid4().hex}/out"
