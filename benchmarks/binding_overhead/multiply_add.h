// What every binding of this benchmark calls: the same work and the same check of lengths.
#pragma once

#include <cstdint>
#include <stdexcept>

namespace binding_overhead {

// out = a * b + c * d. Not fused, so that numpy's expression gives the same bits.
inline void multiply_add(const float* a, const float* b, const float* c, const float* d, float* out,
                         int64_t size) noexcept {
  for (int64_t i = 0; i < size; ++i) out[i] = a[i] * b[i] + c[i] * d[i];
}

// Throws std::invalid_argument, which all three make a ValueError.
inline void require_equal_lengths(int64_t a, int64_t b, int64_t c, int64_t d) {
  if (a != b || a != c || a != d) {
    throw std::invalid_argument("a, b, c, d: expected arrays of one length");
  }
}

}  // namespace binding_overhead
