#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# usage: run_all.sh [directory of the programs, by default build/bench-cuda/bin]
#
# Runs the benchmarks of the CUDA back end, and the comparison with PyTorch where python3 has it:
# about a minute, most of which torch.compile takes. BENCH_ARGS: arguments of each program.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
bin=${1:-$here/../../build/bench-cuda/bin}

if command -v nvidia-smi >/dev/null; then
  nvidia-smi --query-gpu=name,driver_version,clocks.sm,clocks.mem,power.limit --format=csv,noheader
fi
failed=
for program in "$bin"/bench_cuda_*; do
  echo "== $(basename "$program")"
  # shellcheck disable=SC2086
  "$program" --benchmark_counters_tabular=true ${BENCH_ARGS:-} || failed+=" $program"
done
if python3 -c 'import torch, sys; sys.exit(not torch.cuda.is_available())' 2>/dev/null; then
  echo "== PyTorch"
  python3 "$here/compare_with_torch.py" "$bin/libbench_cuda.so" || failed+=" compare_with_torch.py"
  if [[ -x $bin/cuda_head_steps ]]; then
    python3 "$here/heads/compare_with_torch.py" "$bin/cuda_head_steps" ||
      failed+=" heads/compare_with_torch.py"
  fi
else
  echo "no PyTorch with CUDA: not compared (pip install torch)"
fi
if [[ -n $failed ]]; then
  echo "failed:$failed"
  exit 1
fi
