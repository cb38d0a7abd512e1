// From float32 probabilities to integer intervals: the rule of the version 1 range coder, and that
// of the reference's arithmetic coder (docs/entropy.md).
#pragma once

#include <cstdint>

namespace encodec_fast {

// Interval widths of one distribution sum to at most this.
inline constexpr int kCdfBits = 24;
inline constexpr uint32_t kCdfTotal = 1u << kCdfBits;

// Symbols of a distribution.
inline constexpr int64_t kMinSymbols = 2;
inline constexpr int64_t kMaxSymbols = 65536;

// A symbol's part of 0..kCdfTotal.
struct Interval {
  uint32_t start, width;
};

#ifdef EF_ISA
namespace EF_ISA {
// The rule, for n probabilities p: c = 2^24 - 2n in float32, width_i = 1 + int(p_i * c) with one
// float32 product and truncation, start_i the sum of the widths before. A distribution is valid if
// every p_i is in 0..1 and the widths sum to at most 2^24. n is in kMinSymbols..kMaxSymbols; round
// to nearest with denormals kept (engine/float_control.h).

// The interval of `symbol` < n; of width 0 where the distribution is not valid.
Interval cdf_interval(const float* p, int64_t n, int64_t symbol) noexcept;

// The symbol whose interval holds `target`; -1 where the distribution is not valid or no interval
// holds it.
int64_t cdf_find(const float* p, int64_t n, uint32_t target, Interval* interval) noexcept;

// Writes the n + 1 sums of widths, from 0; false where the distribution is not valid.
bool cdf_starts(const float* p, int64_t n, uint32_t* starts) noexcept;

// The reference's rule in its float32 order: q = floor(p / 1e-8) * 1e-8, widths of
// 2 + floor((2^24 - 2n) * q), cdf their inclusive sums. These may exceed 2^24 (peaked
// distributions): coding the last symbol then fails. False where a p is not in 0..1.
bool cdf_reference(const float* p, int64_t n, int64_t* cdf) noexcept;
}  // namespace EF_ISA
#endif

}  // namespace encodec_fast
