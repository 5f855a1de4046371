#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# usage: run_all.sh [directory of the programs] [directory of the report]
#
# By default build/bench-cuda/bin and build/bench-cuda/report. Runs the benchmarks of the CUDA back
# end, steps of heads, and the comparison with PyTorch where python3 has it. They leave JSON and
# Markdown in the directory of the report, which report.py makes of these. BENCH_ARGS: arguments of
# each benchmark.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
build=$here/../../build/bench-cuda
bin=${1:-$build/bin}
out=${2:-$build/report}
mkdir -p "$out"
rm -f "$out"/bench_cuda_*.json "$out"/{heads,torch,torch_heads}.md

arguments=(--benchmark_counters_tabular=true --benchmark_out_format=json)
if command -v nvidia-smi >/dev/null; then
  driver=$(nvidia-smi --query-gpu=driver_version --format=csv,noheader | head -n 1)
  arguments+=(--benchmark_context=driver="$driver")
fi
failed=
results=()
for program in "$bin"/bench_cuda_*; do
  name=$(basename "$program")
  echo "== $name"
  # shellcheck disable=SC2086
  if ! "$program" "${arguments[@]}" --benchmark_out="$out/$name.json" ${BENCH_ARGS:-}; then
    failed+=" $name"
  elif [[ -s $out/$name.json ]]; then  # empty where BENCH_ARGS chose none of its benchmarks
    results+=("$out/$name.json")
  fi
done

# section <name> <title> <command>...: shows what it prints, and keeps it for the report.
sections=()
section() {
  local name=$1 title=$2
  shift 2
  echo "== $title"
  "$@" | tee "$out/$name.txt" || failed+=" $name"
  printf '## %s\n\n```\n%s\n```\n' "$title" "$(<"$out/$name.txt")" >"$out/$name.md"
  rm "$out/$name.txt"
  sections+=("$out/$name.md")
}
if [[ -x $bin/cuda_head_steps ]]; then
  section heads "Steps of heads" "$bin/cuda_head_steps"
fi
if python3 -c 'import torch, sys; sys.exit(not torch.cuda.is_available())' 2>/dev/null; then
  section torch "Losses and noising beside PyTorch" \
    python3 "$here/compare_with_torch.py" "$bin/libbench_cuda.so"
  if [[ -x $bin/cuda_head_steps ]]; then
    section torch_heads "Heads beside PyTorch" \
      python3 "$here/heads/compare_with_torch.py" "$bin/cuda_head_steps"
  fi
else
  echo "no PyTorch with CUDA: not compared (pip install torch)"
fi

if ((${#results[@]} == 0)); then
  echo "no results: no report"
elif command -v python3 >/dev/null; then
  python3 "$here/../report.py" "${results[@]}" --out "$out" --command benchmarks/cuda/run_all.sh \
    --append "${sections[@]}" || failed+=" report.py"
else
  echo "no python3: no report. benchmarks/report.py makes it of the files in $out"
fi
if [[ -n $failed ]]; then
  echo "failed:$failed"
  exit 1
fi
