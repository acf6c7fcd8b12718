#!/usr/bin/env bash
# What `make gpu-test` runs on a machine with an NVIDIA GPU, within ten minutes: the tests marked
# gpu, then the latencies. GPU_PYTHON is a Python that has torch and torchvision; WHEELS is a folder
# of wheels (make gpu-wheels) for a machine without network, empty where there is one.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

python=${GPU_PYTHON:-python3}
command -v nvidia-smi > /dev/null || {
    echo "error: no nvidia-smi here: gpu-test needs a machine with an NVIDIA GPU" >&2
    exit 4
}
nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader
"$python" -c 'import torch, torchvision; print("torch", torch.__version__)' || {
    echo "error: $python has no torch and torchvision: choose another with GPU_PYTHON=..." >&2
    exit 1
}

venv=build/gpu-venv
[ -x "$venv/bin/python" ] || "$python" -m venv --system-site-packages "$venv"
pip=("$venv/bin/python" -m pip install --quiet --disable-pip-version-check)
if [ -n "${WHEELS:-}" ]; then
    # --no-deps: the folder is complete, and torch is the machine's own whatever its version
    "${pip[@]}" --no-index --no-deps "$WHEELS"/*.whl
else
    "${pip[@]}" --prefer-binary '.[export,runtime]' pytest tensorrt-rtx
fi

# -W default: another version of torch or TensorRT may warn of something else
timeout 360 "$venv/bin/python" -m pytest -q -W default -m gpu tests/deploy "$@"
timeout 200 "$venv/bin/python" benchmarks/gpu.py --seconds 0.5
