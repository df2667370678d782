#!/usr/bin/env bash
# Checks and timings that need a CUDA device: about ten minutes, one JSON to send back.
#
#   scripts/gpu_check.sh                        # writes runs/gpu_check/ and nothing else
#   scripts/gpu_check.sh --output DIR           # further options: python -m motet.experiments.gpu_check --help
#
# Uses .venv of this checkout if there is one, else the python that is active.
set -euo pipefail
cd "$(dirname "$0")/.."

python=.venv/bin/python
[ -x "$python" ] || python=$(command -v python3) || { echo "gpu_check: no python3 found." >&2; exit 2; }
"$python" -c 'import torch, transformers' 2>/dev/null || {
    echo "gpu_check: $python has no torch or no transformers. Fix: make install-dev, or activate an environment with motet." >&2
    exit 2
}
export PYTHONPATH="$PWD" PYTHONDONTWRITEBYTECODE=1 TOKENIZERS_PARALLELISM=false
exec "$python" -m motet.experiments.gpu_check "$@"
