// Activations built of +, *, fma and integer bit operations only: no C library call, same bits
// everywhere.
#pragma once

#include <cstdint>

namespace encodec_fast {
#ifdef EF_ISA
namespace EF_ISA {

// y[i] = x[i] > 0 ? x[i] : exp(x[i]) - 1. x and y may be the same array.
void elu(const float* x, float* y, int64_t n) noexcept;

// One LSTM step of one row. gates [4 * hidden] in the order i, f, g, o (before their activations);
// cell [hidden] is updated in place: c = fma(f, c, i * g); out [hidden] = o * tanh(c).
void lstm_cell(const float* gates, float* cell, float* out, int64_t hidden) noexcept;

}  // namespace EF_ISA
#endif
}  // namespace encodec_fast
