// Strided matrix product with fused epilogue: the one kernel that convolutions, LSTM projections
// and recurrence share.
#pragma once

#include <cstdint>

namespace encodec_fast {

// Columns of one packed weight panel. A matrix [k][n] is stored as ceil(n / 16) panels of [k][16],
// zero padded, one after the other. In bfloat16 row 2i of a panel is stored interleaved with row 2i
// + 1, value by value; an odd k is padded by a row.
inline constexpr int64_t kPanel = 16;

// Consecutive rows of one stream.
struct GemmPart {
  const float* a;    // row i starts at a + i * a_stride; rows may overlap (convolution windows do)
  const float* add;  // [m][n] or nullptr
  float* out;        // [m][n] or nullptr
  float* elu;        // [m][n] or nullptr
  int64_t m;
};

// Of every part: y[i][j] = chain(start; a[i][0] * w[0][j], a[i][1] * w[1][j], ...) (+ add[i][j]);
// out = y and elu = ELU(y), each unless it is null. The chain is one sequence of fused
// multiply-adds in increasing k; `add` follows in one plain addition.
struct GemmArgs {
  const GemmPart* parts;
  int64_t part_count;
  int64_t a_stride;
  const float* panels;       // one of these two is set
  const uint16_t* panels16;  // bfloat16, widened when read
  int64_t n, k;
  bool backward;      // which panels are read first; changes no result
  const float* bias;  // [n], where the chains start; nullptr: they start from what `out` holds
};

#ifdef EF_ISA
namespace EF_ISA {
void gemm(const GemmArgs& args) noexcept;
}
#endif

}  // namespace encodec_fast
