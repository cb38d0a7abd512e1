// The width of one probability's interval (cdf.h), shared by the kernels of every instruction set
// and by CUDA's.
#pragma once

#include <cstdint>

#include "kernels/cdf.h"
#include "kernels/qualifier.h"

namespace encodec_fast::EF_ISA {

// c of the rule, for n symbols.
EF_BOTH inline float cdf_factor(int64_t n) noexcept {
  return static_cast<float>(static_cast<int64_t>(kCdfTotal) - 2 * n);
}

// Whether the rule takes p; not a number it does not.
EF_BOTH inline bool is_probability(float p) noexcept { return p >= 0.0f && p <= 1.0f; }

// Of a p in 0..1: one product, rounded to nearest, truncated.
EF_BOTH inline uint32_t cdf_width(float p, float factor) noexcept {
#ifdef __CUDA_ARCH__
  return 1 + static_cast<uint32_t>(__fmul_rn(p, factor));
#else
  return 1 + static_cast<uint32_t>(p * factor);
#endif
}

}  // namespace encodec_fast::EF_ISA
