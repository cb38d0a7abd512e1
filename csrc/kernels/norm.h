// Reductions in one fixed shape, group norm's last step and layer norm.
#pragma once

#include <cstdint>

namespace encodec_fast {

// Elements of one block of a reduction; engine/moments.h combines the blocks.
inline constexpr int64_t kReductionBlock = 4096;

// fma(x[t][c] - mean, scale[c], offset[c]), or x itself where scale is null.
struct NormTerm {
  const float* x;
  float mean;
  const float* scale;
  const float* offset;
};

#ifdef EF_ISA
namespace EF_ISA {
// Over n <= kReductionBlock elements: 16 lanes, lane j takes elements j, j + 16, ...; lanes are
// folded 8, 4, 2, 1.
float sum(const float* x, int64_t n) noexcept;                      // of x
float sum_squares(const float* x, int64_t n, float mean) noexcept;  // of (x - mean)^2

// y = term (+ add, unless its x is null), [rows][channels]; out = y and elu = ELU(y), each unless
// it is null. out and elu may be the x of either.
void normalize(const NormTerm& term, const NormTerm& add, int64_t rows, int64_t channels,
               float* out, float* elu) noexcept;

// Of each row [channels]: mean = sum / channels, variance = sum_squares / channels, both as above,
// out = fma(x - mean, scale * (1 / sqrt(variance + eps)), offset). out may be x.
void layer_norm(const float* x, const float* scale, const float* offset, float eps, int64_t rows,
                int64_t channels, float* out) noexcept;
}  // namespace EF_ISA
#endif

}  // namespace encodec_fast
