#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Installs what the tests, examples and benchmarks need, on Debian 12, Ubuntu 24.04 and later. The
# library itself needs a C++20 compiler and nothing else.
#
#   ./cmake/setup.sh               g++, CMake and the packages that the default presets use
#   ./cmake/setup.sh --lint        also clang++, clang-tidy and clang-format
#   ./cmake/setup.sh --with-torch  also LibTorch and PyTorch (1 GB), for the preset torch
#   ./cmake/setup.sh --cuda-sim    also what .ci/cuda-sim needs, but for CUDA, which NVIDIA has
#
# Where nothing is missing it does nothing and uses no network.
set -euo pipefail

packages=(
  g++ cmake ninja-build
  catch2                          # tests
  libeigen3-dev libxtensor-dev    # adapters, and rivals in the benchmarks
  libdlpack-dev
  nlohmann-json3-dev              # tests: reads the golden values
  librandom123-dev                # tests: another Philox to compare with
  libbenchmark-dev python3        # benchmarks, and the report on them
  libcli11-dev zlib1g-dev         # examples
  dataset-fashion-mnist           # examples: 70 000 real images
)
lint_packages=(clang clang-tidy clang-format-16 libomp-dev)

for argument in "$@"; do
  case "$argument" in
    --lint) packages+=("${lint_packages[@]}") ;;
    --with-torch) packages+=(libtorch-dev python3-torch) ;;
    --cuda-sim) packages+=(libboost-context-dev) ;;
    *)
      echo "usage: $0 [--lint] [--with-torch] [--cuda-sim]" >&2
      exit 2
      ;;
  esac
done

if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
  # Not a Debian: the names below say what is meant, the library's tests find it through CMake.
  absent=()
  for program in c++ cmake ninja; do
    command -v "$program" >/dev/null || absent+=("$program")
  done
  echo "This script installs with apt only. Needed, under the names that Debian gives them:"
  echo "  ${packages[*]}"
  if ((${#absent[@]})); then
    echo "Not found: ${absent[*]}" >&2
    exit 1
  fi
  exit 0
fi

missing=()
for package in "${packages[@]}"; do
  # A compiler, a CMake or a Python from elsewhere will do.
  program=${package/ninja-build/ninja}
  [[ $package =~ ^(g\+\+|cmake|ninja-build|python3)$ ]] && command -v "$program" >/dev/null && continue
  status=$(dpkg-query --show --showformat='${db:Status-Status}' "$package" 2>/dev/null || true)
  [[ $status == installed ]] || missing+=("$package")
done
if ((${#missing[@]} == 0)); then
  exit 0
fi

as_root=()
if ((EUID != 0)); then
  if ! command -v sudo >/dev/null; then
    echo "Missing: ${missing[*]}" >&2
    echo "Install them as root:  apt-get install ${missing[*]}" >&2
    exit 1
  fi
  as_root=(sudo)
fi

echo "Installing: ${missing[*]}"
install=("${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install --yes
  --no-install-recommends "${missing[@]}")
# The package lists of a fresh system are empty or old, those of a used one mostly will do.
"${install[@]}" >/dev/null 2>&1 || {
  "${as_root[@]}" apt-get update --quiet
  "${install[@]}"
}
