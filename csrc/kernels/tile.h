// The register tile of the products: a few rows times a few panels, every accumulator one chain of
// fused multiply-adds in increasing k. For kernel sources.
#pragma once

#include "kernels/gemm.h"
#include "kernels/vec.h"

namespace encodec_fast::EF_ISA {

inline constexpr int kVecs = kPanel / kLanes;  // of one row of a panel
inline constexpr int kRegisters = kLanes == 16 ? 32 : 16;
inline constexpr int kTileRows = 6;
// Rows of a tile with weights of type W. The mask that widens bfloat16 takes a register.
template <typename W>
inline constexpr int kRowsWith = sizeof(W) == sizeof(float) || kRegisters > 16 ? kTileRows : 5;
// Tiles of more rows need every register for accumulators.
inline constexpr int kFewRows = 3;

// Panels of a tile of `rows` rows: as many accumulators as the registers hold beside weights and a
// broadcast, and at least eight where the rows are few, so that the latency of an fma is hidden.
constexpr int panels_at_once(int rows) {
  if (kLanes == 16) return rows == 2 || rows == 3 ? 8 : 4;
  return rows == 1 ? 4 : rows <= 3 ? 2 : 1;
}

// The accumulators stay in registers only where every loop over them is unrolled.
template <int R, int P>
using Accumulators = Vec[R][P][kVecs];

// Weights of type W are read in steps of this many rows of a panel. Two rows of bfloat16 are stored
// value by value side by side, so that one shift and one mask widen them.
template <typename W>
inline constexpr int64_t kStep = sizeof(W) == sizeof(float) ? 1 : 2;

template <typename W>
constexpr int64_t padded_depth(int64_t k) {
  return (k + kStep<W> - 1) / kStep<W> * kStep<W>;
}

// The weight in row k and column j < kPanel of a panel.
inline float element(const float* panel, int64_t k, int64_t j) noexcept {
  return panel[k * kPanel + j];
}
inline float element(const uint16_t* panel, int64_t k, int64_t j) noexcept {
  const uint32_t bits = static_cast<uint32_t>(panel[k / 2 * 2 * kPanel + 2 * j + k % 2]) << 16;
  float x;
  __builtin_memcpy(&x, &bits, sizeof x);
  return x;
}

// acc[r] += x[r] * w for all rows and the vectors of P panels; weight(p, v) loads one.
template <int R, int P, typename Weight>
inline void accumulate(const float* const (&a)[R], int64_t k, Weight weight,
                       Accumulators<R, P>& acc) noexcept {
  if constexpr (R * P * kVecs + P * kVecs < kRegisters) {
    Vec w[P][kVecs];
    for (int p = 0; p < P; ++p) {
      for (int v = 0; v < kVecs; ++v) w[p][v] = weight(p, v);
    }
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const Vec x = broadcast(a[r][k]);
#pragma GCC unroll 8
      for (int p = 0; p < P; ++p) {
        for (int v = 0; v < kVecs; ++v) acc[r][p][v] = fma(x, w[p][v], acc[r][p][v]);
      }
    }
  } else {
#pragma GCC unroll 8
    for (int p = 0; p < P; ++p) {
      for (int v = 0; v < kVecs; ++v) {
        const Vec w = weight(p, v);
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r) acc[r][p][v] = fma(broadcast(a[r][k]), w, acc[r][p][v]);
      }
    }
  }
}

// One step of all chains; w is the step's row in the first of P panels, `panel` values apart.
template <int R, int P>
inline void multiply(const float* w, int64_t panel, const float* const (&a)[R], int64_t k,
                     Accumulators<R, P>& acc) noexcept {
  accumulate<R, P>(a, k, [&](int p, int v) { return load(w + p * panel + v * kLanes); }, acc);
}

template <int R, int P>
inline void multiply(const uint16_t* w, int64_t panel, const float* const (&a)[R], int64_t k,
                     Accumulators<R, P>& acc) noexcept {
  const auto pair = [&](int p, int v) { return load_pair(w + p * panel + 2 * v * kLanes); };
  if constexpr (R > kFewRows) {  // registers are scarce: read twice, widen once
    accumulate<R, P>(a, k, [&](int p, int v) { return pair(p, v).even; }, acc);
    accumulate<R, P>(a, k + 1, [&](int p, int v) { return pair(p, v).odd; }, acc);
  } else {
#pragma GCC unroll 8
    for (int p = 0; p < P; ++p) {
#pragma GCC unroll 2
      for (int v = 0; v < kVecs; ++v) {
        const Pair both = pair(p, v);
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r) {
          const Vec first = fma(broadcast(a[r][k]), both.even, acc[r][p][v]);
          acc[r][p][v] = fma(broadcast(a[r][k + 1]), both.odd, first);
        }
      }
    }
  }
}

// The last row of an odd number of rows.
template <int R, int P>
inline void multiply_last(const uint16_t* w, int64_t panel, const float* const (&a)[R], int64_t k,
                          Accumulators<R, P>& acc) noexcept {
  accumulate<R, P>(
      a, k, [&](int p, int v) { return load_pair(w + p * panel + 2 * v * kLanes).even; }, acc);
}

// The whole chains of length `length`; w is the first of P consecutive panels. Their rows are read
// one after the other, which the hardware's prefetcher follows; asking ahead in software was
// slower.
template <int R, int P, typename W>
inline void chains(const W* w, int64_t length, const float* const (&a)[R],
                   Accumulators<R, P>& acc) noexcept {
  constexpr int64_t step = kStep<W>;
  const int64_t panel = padded_depth<W>(length) * kPanel;
  const int64_t whole = length / step * step;
  for (int64_t k = 0; k < whole; k += step) multiply<R, P>(w + k * kPanel, panel, a, k, acc);
  if constexpr (step > 1) {
    if (whole < length) multiply_last<R, P>(w + whole * kPanel, panel, a, whole, acc);
  }
}

// Calls work.template run<R, P>() with R = rows (1..Work::kRows) and P = panels, a power of two up
// to panels_at_once(rows).
template <int R, typename Work>
inline void run_tile_of(int panels, Work& work) noexcept {
  if constexpr (panels_at_once(R) >= 8) {
    if (panels == 8) return work.template run<R, 8>();
  }
  if constexpr (panels_at_once(R) >= 4) {
    if (panels == 4) return work.template run<R, 4>();
  }
  if constexpr (panels_at_once(R) >= 2) {
    if (panels == 2) return work.template run<R, 2>();
  }
  work.template run<R, 1>();
}

template <typename Work>
inline void run_tile(int64_t rows, int panels, Work& work) noexcept {
  switch (rows) {
    case 1:
      return run_tile_of<1>(panels, work);
    case 2:
      return run_tile_of<2>(panels, work);
    case 3:
      return run_tile_of<3>(panels, work);
    case 4:
      return run_tile_of<4>(panels, work);
    case 5:
      return run_tile_of<5>(panels, work);
    default:
      return run_tile_of<Work::kRows>(panels, work);
  }
}

// Runs tiles over m >= 1 rows and `panels` panels. Before each group of panels calls
// work.begin(first panel), then runs it for all rows, in tiles of about equal height (8 rows are
// 4 + 4, not 6 + 2), so that the panels stay in a near cache while all rows pass over them.
// `backward` takes whole groups from the last to the first.
template <typename Work>
inline void run_tiles(int64_t m, int64_t panels, bool backward, Work& work) noexcept {
  const int64_t tiles = (m + Work::kRows - 1) / Work::kRows;
  const int64_t height = m / tiles;
  const int64_t taller = m % tiles;
  const int most = panels_at_once(static_cast<int>(height + (taller > 0 ? 1 : 0)));
  const int64_t whole = panels / most * most;
  const auto group = [&](int64_t panel, int count) {
    work.begin(panel);
    for (int64_t i = 0; i < tiles; ++i) run_tile(height + (i < taller ? 1 : 0), count, work);
  };
  for (int64_t panel = 0; panel < whole; panel += most)
    group(backward ? whole - most - panel : panel, most);
  int count = most;
  for (int64_t panel = whole; panel < panels; panel += count) {
    while (panel + count > panels) count /= 2;
    group(panel, count);
  }
}

}  // namespace encodec_fast::EF_ISA
