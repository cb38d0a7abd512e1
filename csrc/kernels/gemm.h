// Strided matrix product with fused epilogue: the one kernel that convolutions, LSTM projections
// and recurrence share.
#pragma once

#include <cstdint>

namespace encodec_fast {

// Columns of one packed weight panel. A matrix [k][n] is stored as ceil(n / 16) panels of [k][16],
// zero padded.
inline constexpr int64_t kPanel = 16;

// out[i][j] = chain(init[i][j]; a[i][0]*w[0][j], a[i][1]*w[1][j], ...) (+ add[i][j]), i < m, j < n.
// The chain is one sequence of fused multiply-adds in increasing k; `add` follows in one plain
// addition.
struct GemmArgs {
  const float*
      a;  // row i starts at a + i * a_stride; rows may overlap (a convolution's windows do)
  int64_t a_stride;
  const float* panels;
  int64_t m, n, k;
  const float* init;  // init_stride 0: one bias row for all; rows are read up to n only
  int64_t init_stride;
  const float* add;  // nullptr: nothing is added
  int64_t add_stride;
  float* out;
  int64_t out_stride;
};

#ifdef EF_ISA
namespace EF_ISA {
void gemm(const GemmArgs& args) noexcept;
}
#endif

}  // namespace encodec_fast
