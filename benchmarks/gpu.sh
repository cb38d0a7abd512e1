#!/usr/bin/env bash
# benchmarks/gpu.sh [--quick | --emulated]: on a machine with a GPU and nvcc, in at most ten minutes:
# builds the CUDA module, holds it against the CPU, also under compute-sanitizer, and measures. Prints
# one report. --emulated tries this script, without a GPU, on the emulated device of the tests.
# Uses the interpreter in $PYTHON (default python3) with its packages: numpy and nanobind; pytest,
# PyTorch with CUDA and compute-sanitizer for what needs them, which is skipped, saying so, without.
# Nothing is downloaded.
set -uo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
python=${PYTHON:-python3}
export PATH="$PATH:/usr/local/cuda/bin" PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
emulated=""
total=595
if [[ ${1-} == --emulated ]]; then
  emulated=yes
  total=3600  # a small machine may do it
  shift
fi
failed=0

step() { printf '\n== %s (%d s)\n' "$1" "$SECONDS"; }
skip() { printf '\n== skipped: %s\n' "$1"; }
here() { command -v "$1" > /dev/null; }
imports() { "$python" -c "import $1" 2> /dev/null; }

# What nothing works without.
need() {
  echo "gpu.sh: $1 is not here: $2" >&2
  exit 2
}
here "$python" || need "$python" "set PYTHON to an interpreter"
python=$(command -v "$python")
here cmake || need cmake "it makes the build"
here c++ || need "a C++ compiler (c++)" "it makes the host's side"
imports numpy || need "numpy for $python" "the scripts and the package use it"
imports nanobind || need "nanobind for $python" "the build uses it"
if [[ -z $emulated ]]; then
  here nvcc || need nvcc "it compiles the kernels"
  nvidia-smi > /dev/null 2>&1 || need "a GPU" "nvidia-smi finds none; --emulated tries this script"
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# A check and its limit in seconds; the report goes on after one that fails.
check() {
  local name=$1 limit=$2
  shift 2
  local left=$((total - SECONDS))
  ((limit < left)) || limit=$left
  ((limit > 0)) || { echo "no time left: $name"; failed=1; return; }
  step "$name"
  timeout "$limit" "$@" || { echo "FAILED ($?): $name"; failed=1; }
}

step "machine"
if [[ -z $emulated ]]; then
  nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.max.sm --format=csv,noheader
  nvcc --version | tail -1
fi

step "build"
options=(-DENCODEC_FAST_CUDA=EMULATED)
if [[ -z $emulated ]]; then
  # For the card at hand alone: a third of the time.
  capability=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader | head -1 | tr -d .)
  options=(-DENCODEC_FAST_CUDA=ON "-DCMAKE_CUDA_ARCHITECTURES=$capability")
fi
here ninja && options+=(-G Ninja)
cmake -S "$root" -B "$work/build" "${options[@]}" -DPython_EXECUTABLE="$python" \
  > "$work/configure.log" 2>&1 || { cat "$work/configure.log"; exit 1; }
timeout $((total / 2)) cmake --build "$work/build" --target _core _cuda -j "$(nproc)" > "$work/build.log" 2>&1 ||
  { tail -50 "$work/build.log"; exit 1; }
mkdir "$work/package"
cp -r "$root/encodec_fast" "$work/package/"
rm -f "$work"/package/encodec_fast/_c*.so
cp "$work"/build/_core*.so "$work"/build/_cuda*.so "$work/package/encodec_fast/"
export PYTHONPATH="$work/package:$root/tests:$root/tests/cuda"
# An editable install finds its own modules before any path: here it must not.
cat > "$work/package/sitecustomize.py" << 'PYTHON'
import sys

sys.meta_path[:] = [f for f in sys.meta_path if "_editable" not in type(f).__module__]
PYTHON
cd "$work"
"$python" - "$work/package" << 'PYTHON' || exit 1
import sys

from encodec_fast import _core, _cuda

for module in (_core, _cuda):
    if not module.__file__.startswith(sys.argv[1]):
        sys.exit(f"gpu.sh: {module.__file__} is in the way of what was built")
PYTHON

tests=$root/tests/cuda
check "elements: the CPU's bits" 60 "$python" "$tests/elements_on_device.py" \
  --stride "$([[ $emulated ]] && echo 99991 || echo 97)"
check "codebooks: the CPU's bits" 60 "$python" "$tests/codebooks_on_device.py"
check "products: the CPU's bits" 60 "$python" "$tests/products_on_device.py"
check "random models: the CPU's bits" 90 "$python" "$tests/agreement_on_device.py" \
  --models "$([[ $emulated ]] && echo 1 || echo 3)"
check "language models: the CPU's bytes" 60 "$python" "$tests/lm_on_device.py" \
  --calls "$([[ $emulated ]] && echo 4 || echo 24)"
if [[ $emulated ]]; then
  skip "wide models, many sequences, the bundled models, compute-sanitizer and the figures: the device is emulated"
  step "end"
  exit "$failed"
fi
check "wide models, 70 streams: the CPU's bits" 90 "$python" "$tests/agreement_on_device.py" \
  --wide --lanes 70
check "700 sequences: the CPU's bytes" 60 "$python" "$tests/lm_on_device.py" \
  --shapes odd "heads of 25" --lanes 700 --calls 4 --steps 90
check "language model's coder: the CPU's tests" 60 "$python" "$tests/lm_rules_on_device.py"
if imports pytest; then
  check "PyTorch's tensors, accelerated models, tokenize: the CPU's bits" 90 "$python" -m pytest -q \
    -rs -p no:cacheprovider "$tests/test_gpu.py" -k "signals or accelerated or tokenize"
  check "bundled models, recordings" 90 "$python" -m pytest -q -rs -p no:cacheprovider \
    "$tests/test_gpu.py" -k recordings
else
  skip "the bundled models: there is no pytest"
fi

check "figures of tokenize" 60 "$python" "$root/benchmarks/bench_gpu_tokenize.py" "$@"
if "$python" -c 'import torch; assert torch.cuda.is_available()' 2> /dev/null; then
  check "figures" 200 "$python" "$root/benchmarks/bench_gpu.py" "$@"
  check "figures of entropy coding" 150 "$python" "$root/benchmarks/bench_gpu_entropy.py" "$@"
else
  skip "the figures: there is no PyTorch with CUDA"
fi

if here compute-sanitizer; then
  # Leaks are not asked for: the process ends with what its caches hold.
  for tool in memcheck racecheck synccheck initcheck; do
    check "compute-sanitizer $tool, codebooks (virtual machines may refuse it)" 45 \
      compute-sanitizer --tool "$tool" --error-exitcode 9 \
      "$python" "$tests/codebooks_on_device.py" --small
    check "compute-sanitizer $tool, products" 45 compute-sanitizer --tool "$tool" --error-exitcode 9 \
      "$python" "$tests/products_on_device.py" --small
    check "compute-sanitizer $tool, models" 45 compute-sanitizer --tool "$tool" --error-exitcode 9 \
      "$python" "$tests/agreement_on_device.py" --kinds constant segments --seed 7 --lanes 2
    check "compute-sanitizer $tool, language model" 45 compute-sanitizer --tool "$tool" \
      --error-exitcode 9 \
      "$python" "$tests/lm_on_device.py" --shapes odd --calls 4 --steps 12 --seed 7
  done
else
  skip "compute-sanitizer: it is not here"
fi
step "end"
exit "$failed"
