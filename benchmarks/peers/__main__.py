"""wrongturn beside datatrove and distilabel, on one simulated server: under faults, and killed.

    python -m benchmarks.peers [--quick]

Installs the others into environments in the user's cache folder, once, and leaves out with the reason what cannot be
installed. What is counted stands in `comparing.py` and `killing.py`.
"""

import argparse

import msgspec

from benchmarks.faults import MIXED
from benchmarks.peers.telling import comparison


def main() -> None:
    """Prints the tables, and all figures as JSON last."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.peers", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="fewer problems, and one setup of each tool killed")
    options = parser.parse_args()
    print(msgspec.json.encode(comparison(MIXED, is_quick=options.quick)).decode())


if __name__ == "__main__":
    main()
