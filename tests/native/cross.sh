#!/usr/bin/env bash
# tests/native/cross.sh COMPILER OUTPUT [LEVEL]: builds engine_hash.cpp and the core, without
# Python, as one static program for COMPILER's target. LEVEL: portable; without it, all
# that CMakeLists.txt has for the target.
set -euo pipefail
(($# == 2 || $# == 3)) || { echo "usage: tests/native/cross.sh COMPILER OUTPUT [portable]" >&2; exit 2; }
compiler=$1 output=$2 level=${3:-}
root=$(cd "$(dirname "$0")/../.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
if [[ $("$compiler" -dumpmachine) != x86_64* ]]; then level=portable; fi
flags=(-std=c++17 -O3 -ffp-contract=off -fno-math-errno -fno-trapping-math -I"$root/csrc")
if [[ $level != portable ]]; then flags+=(-DENCODEC_FAST_X86); fi

# One line per object: its name, its source and its options.
objects() {
  sed -nE 's/^ *add_kernels\((.*)\)$/\1/p' "$root/CMakeLists.txt" |
    while read -r isa options; do
      [[ -z $level || $level == "$isa" ]] || continue
      for source in "$root"/csrc/kernels/*.cpp; do
        echo "$isa-$(basename "$source" .cpp) $source $options -DEF_ISA=$isa"
      done
    done
  for source in "$root"/csrc/{dispatch,engine/*,entropy/*}.cpp "$root/tests/native/engine_hash.cpp"; do
    echo "$(basename "$source" .cpp) $source"
  done
}
while read -r name source options; do
  # shellcheck disable=SC2086  # the options are words
  "$compiler" "${flags[@]}" $options -c "$source" -o "$work/$name.o" &
  while (($(jobs -rp | wc -l) >= $(nproc))); do wait -n; done
done < <(objects)
wait  # for the last ones; without the object of one that failed there is nothing to link
"$compiler" -static -o "$output" "$work"/*.o
