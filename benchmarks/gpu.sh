#!/usr/bin/env bash
# All that a GPU has to show, in one go of less than 9 minutes: a table on the screen, and runs/gpu.json.
#   benchmarks/gpu.sh                                   CIFAR-10 is read from $DATA_DIR, else from data/
#   benchmarks/gpu.sh --json results/gpu.json           another file; further options: python benchmarks/gpu.py --help
#   benchmarks/gpu.sh --device cpu --network tiny --checked tiny --batches 4 --matmul 256 --training-steps 5
set -euo pipefail
cd "$(dirname "$0")/.."
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
exec timeout 530 "${PYTHON:-python}" benchmarks/gpu.py --json runs/gpu.json "$@"
