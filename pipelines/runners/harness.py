"""The program of a pool's worker: Beam's harness, and an end that loses nothing.

usage: python -m pipelines.runners.harness CONTROL_ENDPOINT WORKER_ID GRACE_SECS

A runner stops workers in the middle of their work, for example all of them where one was lost. What such a worker has
at a model server by then is paid for: it asks for nothing more, waits for those answers, and puts them in the journal.
"""

import logging
import os
import signal
import sys
from typing import NoReturn

from apache_beam.runners.worker.sdk_worker import SdkHarness

from pipelines.worker import settle_all


def _stop(number: int, frame: object) -> NoReturn:
    del number, frame
    raise SystemExit(0)


def main(endpoint: str, number: str, grace_secs: float) -> NoReturn:
    """Works for the runner at `endpoint` until it is stopped, or the runner is gone; ends the process."""
    signal.signal(signal.SIGTERM, _stop)
    status = 1
    try:
        SdkHarness(endpoint, worker_id=number, state_cache_size=0, data_buffer_time_limit_ms=-1).run()
        status = 0
    except SystemExit:
        status = 0
    finally:
        if status:
            logging.exception("the harness ended with an error")
        settle_all(grace_secs)
        logging.shutdown()
        # Threads of bundles that were broken off wait for a runner that is gone.
        os._exit(status)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], float(sys.argv[3]))
