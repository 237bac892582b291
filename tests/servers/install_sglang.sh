#!/usr/bin/env bash
# Installs the SGLang server for the tests with marker `sglang` into a virtual environment of its own.
# Its kernel package has no wheel for CPUs: tests/servers/sglang_cpu.py stands in for it. So nothing is resolved here; the
# requirements are the whole set that has run.
#
# usage: tests/servers/install_sglang.sh [FOLDER], then WRONGTURN_SGLANG_PYTHON=FOLDER/bin/python; without FOLDER it lies
# where the tests find it by themselves.
set -euo pipefail
folder=${1:-${XDG_CACHE_HOME:-$HOME/.cache}/wrongturn/sglang}
python3.11 -m venv "$folder"
"$folder/bin/python" -m pip install --quiet --no-deps -r "$(dirname "$0")/sglang_requirements.txt"
"$folder/bin/python" -c 'import torch, importlib.metadata as m; print("sglang", m.version("sglang"))'
