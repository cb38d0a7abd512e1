// The fixed shape of every reduction: 16 lanes, of which lane j takes elements j, j + 16, ...,
// folded 8, 4, 2, 1. For kernel sources.
#pragma once

#include "kernels/vec.h"

namespace encodec_fast::EF_ISA {

inline constexpr int kFoldLanes = 16;
inline constexpr int kFoldVecs = kFoldLanes / kLanes;

// fold(a, b) joins two lanes.
template <typename Join>
inline float fold_lanes(const Vec (&acc)[kFoldVecs], Join join) noexcept {
  float lane[kFoldLanes];
  for (int v = 0; v < kFoldVecs; ++v) store(lane + v * kLanes, acc[v]);
  for (int width = kFoldLanes / 2; width > 0; width /= 2) {
    for (int j = 0; j < width; ++j) lane[j] = join(lane[j], lane[j + width]);
  }
  return lane[0];
}

inline float fold_sum(const Vec (&acc)[kFoldVecs]) noexcept {
  return fold_lanes(acc, [](float a, float b) { return a + b; });
}

}  // namespace encodec_fast::EF_ISA
