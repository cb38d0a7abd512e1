#!/usr/bin/env bash
# benchmarks/gpu.sh [--quick]: on a machine with a GPU and nvcc, in at most ten minutes: builds the
# CUDA module, holds it against the CPU, also under compute-sanitizer, and measures. Prints one report.
# Uses the interpreter in $PYTHON (default python3) with its packages: numpy, pytest, nanobind,
# scikit-build-core, and PyTorch with CUDA for what needs it. Nothing is downloaded.
set -uo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
python=${PYTHON:-python3}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export PATH="/usr/local/cuda/bin:$PATH" PYTHONDONTWRITEBYTECODE=1
failed=0

step() { printf '\n== %s (%d s)\n' "$1" "$SECONDS"; }

# A check and its limit in seconds; the report goes on after one that fails.
check() {
  local name=$1 limit=$2
  shift 2
  local left=$((595 - SECONDS))
  ((limit < left)) || limit=$left
  ((limit > 0)) || { echo "no time left: $name"; failed=1; return; }
  step "$name"
  timeout "$limit" "$@" || { echo "FAILED ($?): $name"; failed=1; }
}

step "machine"
nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.max.sm --format=csv,noheader
nvcc --version | tail -1

step "build"
# For the card at hand alone: a third of the time.
capability=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader | head -1 | tr -d .)
cmake -G Ninja -S "$root" -B "$work/build" -DENCODEC_FAST_CUDA=ON \
  -DCMAKE_CUDA_ARCHITECTURES="$capability" -DPython_EXECUTABLE="$(command -v "$python")" \
  > "$work/configure.log" || { cat "$work/configure.log"; exit 1; }
cmake --build "$work/build" --target _core _cuda -j > "$work/build.log" ||
  { tail -50 "$work/build.log"; exit 1; }
mkdir "$work/package"
cp -r "$root/encodec_fast" "$work/package/"
rm -f "$work"/package/encodec_fast/_c*.so
cp "$work"/build/_core*.so "$work"/build/_cuda*.so "$work/package/encodec_fast/"
export PYTHONPATH="$work/package:$root/tests:$root/tests/cuda"
cd "$work"

on_device() { "$python" "$root/tests/cuda/$1_on_device.py" "${@:2}"; }
export -f on_device
export python root

check "elements: the CPU's bits" 60 bash -c 'on_device elements --stride 97'
check "codebooks: the CPU's bits" 60 bash -c 'on_device codebooks'
check "random models: the CPU's bits" 90 bash -c 'on_device agreement --models 3'
check "wide models, 70 streams: the CPU's bits" 90 bash -c 'on_device agreement --wide --lanes 70'
check "language models: the CPU's bytes" 90 bash -c 'on_device lm --calls 24 && on_device lm --shapes odd "heads of 25" --lanes 700 --calls 4 --steps 90'
check "language model's coder: the CPU's tests" 60 bash -c 'on_device lm_rules'
check "bundled models, recordings" 90 "$python" -m pytest -q -rs -p no:cacheprovider \
  "$root/tests/cuda/test_gpu.py" -k recordings

if command -v compute-sanitizer > /dev/null; then
  # Leaks are not asked for: the process ends with what its caches hold.
  for tool in memcheck racecheck synccheck initcheck; do
    check "compute-sanitizer $tool (may be refused on virtual machines)" 60 compute-sanitizer \
      --tool "$tool" --error-exitcode 9 \
      "$python" "$root/tests/cuda/agreement_on_device.py" --kinds segments --seed 7
    check "compute-sanitizer $tool, language model" 45 compute-sanitizer \
      --tool "$tool" --error-exitcode 9 \
      "$python" "$root/tests/cuda/lm_on_device.py" --shapes odd --calls 4 --steps 12 --seed 7
  done
else
  echo "compute-sanitizer is not here: skipped"
fi

if "$python" -c 'import torch; assert torch.cuda.is_available()' 2> /dev/null; then
  check "figures" 200 "$python" "$root/benchmarks/bench_gpu.py" "$@"
  check "figures of entropy coding" 150 "$python" "$root/benchmarks/bench_gpu_entropy.py" "$@"
else
  echo "PyTorch with CUDA is not here: the figures are skipped"
fi
step "end"
exit "$failed"
