#include "kernels/embedding.h"

#include "kernels/position.h"

namespace encodec_fast::EF_ISA {
namespace {

inline float widen(uint16_t upper) noexcept {
  const uint32_t bits = static_cast<uint32_t>(upper) << 16;
  float x;
  __builtin_memcpy(&x, &bits, sizeof x);
  return x;
}

}  // namespace

void embed(const Embedding* tables, int64_t count, const uint32_t* indices, int64_t rows,
           int64_t dim, float* out) noexcept {
  for (int64_t t = 0; t < rows; ++t, indices += count, out += dim) {
    for (int64_t k = 0; k < count; ++k) {
      const int64_t at = indices[k] * dim;
      const Embedding& table = tables[k];
      for (int64_t i = 0; i < dim; ++i) {
        const float x = table.rows == nullptr ? widen(table.rows16[at + i]) : table.rows[at + i];
        out[i] = k == 0 ? x : out[i] + x;
      }
    }
  }
}

void add_positions(const double* rates, int64_t half, int64_t first, int64_t rows,
                   float* x) noexcept {
  for (int64_t t = 0; t < rows; ++t, x += 2 * half) {
    const double position = static_cast<double>(first + t);
    for (int64_t i = 0; i < half; ++i) {
      const Turn at = turn(position * rates[i]);
      x[i] = x[i] + static_cast<float>(at.cosine);
      x[half + i] = x[half + i] + static_cast<float>(at.sine);
    }
  }
}

}  // namespace encodec_fast::EF_ISA
