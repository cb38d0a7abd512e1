// The input of the language model: embeddings of codes, and positions.
#pragma once

#include <cstdint>

namespace encodec_fast {

// A table of rows [dim]; one of the two is set.
struct Embedding {
  const float* rows;
  const uint16_t* rows16;  // bfloat16
};

#ifdef EF_ISA
namespace EF_ISA {
// out[t] = tables[0][indices[t][0]] + tables[1][indices[t][1]] + ..., in this order; indices
// [rows][count], out [rows][dim].
void embed(const Embedding* tables, int64_t count, const uint32_t* indices, int64_t rows,
           int64_t dim, float* out) noexcept;

// Adds to row t of x [rows][2 * half] the cosines and behind them the sines of (first + t) *
// rates[i], i < half, computed in float64 and rounded once: exact to float32 rounding for phases
// up to 2^31.
void add_positions(const double* rates, int64_t half, int64_t first, int64_t rows,
                   float* x) noexcept;
}  // namespace EF_ISA
#endif

}  // namespace encodec_fast
