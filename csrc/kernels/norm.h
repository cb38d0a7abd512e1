// Reductions in one fixed shape: group norm's statistics and the level of a segment.
#pragma once

#include <cstdint>

namespace encodec_fast {
#ifdef EF_ISA
namespace EF_ISA {

// Sums over blocks of 4096 elements: 16 lanes, lane j takes elements j, j + 16, ...; lanes are
// folded 8, 4, 2, 1; block sums are added in index order in double.
double sum(const float* x, int64_t n) noexcept;                      // of x
double sum_squares(const float* x, int64_t n, float mean) noexcept;  // of (x - mean)^2

// x[t][c] = fma(x[t][c] - mean, scale[c], offset[c]) (+ add[t][c] when add is not null), in place.
void normalize(float* x, int64_t rows, int64_t channels, float mean, const float* scale,
               const float* offset, const float* add) noexcept;

}  // namespace EF_ISA
#endif
}  // namespace encodec_fast
