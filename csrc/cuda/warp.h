// What the threads of a warp tell each other: all 32 take part in every call.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/elements.h"

namespace encodec_fast::cuda {

inline constexpr int kWarp = 32;
inline constexpr unsigned kWholeWarp = 0xffffffffu;
// Lanes of a reduction in the fixed shape (docs/determinism.md): half a warp.
inline constexpr int kFoldLanes = 16;

__device__ inline int lane_of_warp() { return static_cast<int>(threadIdx.x) % kWarp; }

// The lanes of each half, folded 8, 4, 2, 1. The tree is the same for all of them, as a + b is
// b + a, so that each has the result.
__device__ inline float fold_sum(float mine) {
  for (int width = kFoldLanes / 2; width > 0; width /= 2) {
    const EF_ISA::Vec other = {__shfl_xor_sync(kWholeWarp, mine, width)};
    mine = (EF_ISA::Vec{mine} + other).v;
  }
  return mine;
}

// The largest of the `lanes` threads that are neighbours: exact in any order. Values that are not
// numbers may be left out: their terms are not numbers either.
__device__ inline float largest(float mine, int lanes) {
  for (int width = lanes / 2; width > 0; width /= 2) {
    const float other = __shfl_xor_sync(kWholeWarp, mine, width);
    mine = other > mine ? other : mine;
  }
  return mine;
}

// Sum over the warp.
template <typename T>
__device__ inline T total_of(T mine) {
  for (int width = kWarp / 2; width > 0; width /= 2)
    mine += __shfl_xor_sync(kWholeWarp, mine, width);
  return mine;
}

// Sums of the threads up to each.
__device__ inline uint32_t running_totals(uint32_t mine) {
  for (int width = 1; width < kWarp; width *= 2) {
    const uint32_t below = __shfl_up_sync(kWholeWarp, mine, static_cast<unsigned>(width));
    if (lane_of_warp() >= width) mine += below;
  }
  return mine;
}

// A term of the softmax.
__device__ inline float term_of(float x, float most) {
  using namespace EF_ISA;
  return exp_negative(Vec{x} - Vec{most}, Vec{0.0f}).v;
}

inline constexpr float kLowest = -3.40282347e38f;

}  // namespace encodec_fast::cuda
