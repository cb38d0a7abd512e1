// Element-wise steps between the products.
#pragma once

#include <cstdint>

namespace encodec_fast {

#ifdef EF_ISA
namespace EF_ISA {
// y = x (+ add when add is not null); out = y and elu = ELU(y), each unless it is null. [n] each;
// out and elu may be x or add.
void activate(const float* x, const float* add, float* out, float* elu, int64_t n) noexcept;

// x = GELU(x), [n].
void gelu(float* x, int64_t n) noexcept;

// One LSTM step of one row. gates [4 * hidden] in the order i, f, g, o (before their activations);
// cell [hidden] is updated in place: c = fma(f, c, i * g); out [hidden] = o * tanh(c).
void lstm_cell(const float* gates, float* cell, float* out, int64_t hidden) noexcept;
}  // namespace EF_ISA
#endif

}  // namespace encodec_fast
