// Products of a few columns, which would leave most of a panel empty: vectorised over rows. The
// chains are those of the panels. For gemm.cpp.
#pragma once

#include "kernels/elementary.h"
#include "kernels/tile.h"

namespace encodec_fast::EF_ISA {

inline constexpr int64_t kThinColumns = 4;
// Rows at once: enough independent chains to hide the latency of an fma.
inline constexpr int64_t kThinRows = 64;
// Transposed values that the stack holds.
inline constexpr int64_t kThinValues = 4096;

// Row i of `a` overlaps row i + 1 in all but a_stride values, as the windows of a convolution do,
// so the product reads this many different rows of a_stride values.
inline int64_t thin_depth(const GemmArgs& g) noexcept {
  return kThinRows + (g.k + g.a_stride - 1) / g.a_stride - 1;
}

inline bool is_thin(const GemmArgs& g) noexcept {
  return g.n <= kThinColumns && g.bias != nullptr && g.a_stride % 4 == 0 && g.k % g.a_stride == 0 &&
         thin_depth(g) * g.a_stride <= kThinValues - 4 * g.a_stride;
}

// value[c * depth + t] = a[t * width + c] for t < rows, zero behind.
inline void transpose(const float* a, int64_t width, int64_t rows, int64_t depth,
                      float* value) noexcept {
  int64_t t = 0;
  for (; t + 4 <= rows; t += 4) {
    for (int64_t c = 0; c < width; c += 4)
      transpose_4x4(a + t * width + c, width, value + c * depth + t, depth);
  }
  for (; t < depth; ++t) {
    for (int64_t c = 0; c < width; ++c) value[c * depth + t] = t < rows ? a[t * width + c] : 0.0f;
  }
}

// Up to kThinRows rows of one column; value is transposed.
template <typename W>
inline void thin_column(const GemmArgs& g, const W* panel, const float* value, int64_t depth,
                        int64_t column, float* y) noexcept {
  constexpr int kGroups = kThinRows / kLanes;
  Vec acc[kGroups];
#pragma GCC unroll 8
  for (int i = 0; i < kGroups; ++i) acc[i] = broadcast(g.bias[column]);
  int64_t k = 0;
  for (int64_t tap = 0; k < g.k; ++tap) {
    for (int64_t c = 0; c < g.a_stride; ++c, ++k) {
      const Vec w = broadcast(element(panel, k, column));
      const float* x = value + c * depth + tap;
#pragma GCC unroll 8
      for (int i = 0; i < kGroups; ++i) acc[i] = fma(w, load(x + i * kLanes), acc[i]);
    }
  }
#pragma GCC unroll 8
  for (int i = 0; i < kGroups; ++i) store(y + i * kLanes, acc[i]);
}

template <typename W>
void run_thin(const GemmArgs& g, const W* panel) noexcept {
  float value[kThinValues];
  float y[kThinColumns][kThinRows];
  const int64_t depth = thin_depth(g);
  for (int64_t p = 0; p < g.part_count; ++p) {
    const GemmPart& part = g.parts[p];
    for (int64_t i = 0; i < part.m; i += kThinRows) {
      const int64_t rows = part.m - i < kThinRows ? part.m - i : kThinRows;
      transpose(part.a + i * g.a_stride, g.a_stride, rows + depth - kThinRows, depth, value);
      for (int64_t j = 0; j < g.n; ++j) thin_column(g, panel, value, depth, j, y[j]);
      for (int64_t r = 0; r < rows; ++r) {
        for (int64_t j = 0; j < g.n; ++j) {
          const int64_t at = (i + r) * g.n + j;
          const float sum = part.add == nullptr ? y[j][r] : y[j][r] + part.add[at];
          if (part.out != nullptr) part.out[at] = sum;
          if (part.elu != nullptr) store_part(part.elu + at, elu(broadcast(sum)), 1);
        }
      }
    }
  }
}

}  // namespace encodec_fast::EF_ISA
