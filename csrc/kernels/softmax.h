// Softmax: exp(x - max) of one row, and its sum, in the fixed shape of the reductions (norm.h).
#pragma once

#include <cstdint>

namespace encodec_fast {

#ifdef EF_ISA
namespace EF_ISA {
// Replaces x [n] by exp(x - max(x)) and returns their sum; n >= 1. A value that is not finite makes
// results that are not finite or not numbers, the same ones everywhere.
float softmax_terms(float* x, int64_t n) noexcept;

// Replaces each of `rows` rows x [n] by its softmax: the terms, each divided by their sum.
void softmax(float* x, int64_t rows, int64_t n) noexcept;
}  // namespace EF_ISA
#endif

}  // namespace encodec_fast
