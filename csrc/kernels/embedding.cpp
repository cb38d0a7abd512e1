#include "kernels/embedding.h"

namespace encodec_fast::EF_ISA {
namespace {

inline float widen(uint16_t upper) noexcept {
  const uint32_t bits = static_cast<uint32_t>(upper) << 16;
  float x;
  __builtin_memcpy(&x, &bits, sizeof x);
  return x;
}

struct Turn {
  double cosine, sine;
};

// Cody and Waite: the phase minus a multiple of pi / 2, which is kept in two parts; then the Taylor
// polynomials on -pi / 4 .. pi / 4, whose error is below 1e-15.
inline Turn turn(double phase) noexcept {
  constexpr double kShift = 0x1.8p52;  // adding it rounds to an integer in the low mantissa bits
  const double t = __builtin_fma(phase, 0x1.45f306dc9c883p-1, kShift);
  const double n = t - kShift;
  double r = __builtin_fma(n, -0x1.921fb54442d18p+0, phase);
  r = __builtin_fma(n, -0x1.1a62633145c07p-54, r);
  const double q = r * r;
  double s = __builtin_fma(q, -1.0 / 1307674368000.0, 1.0 / 6227020800.0);
  s = __builtin_fma(s, q, -1.0 / 39916800.0);
  s = __builtin_fma(s, q, 1.0 / 362880.0);
  s = __builtin_fma(s, q, -1.0 / 5040.0);
  s = __builtin_fma(s, q, 1.0 / 120.0);
  s = __builtin_fma(s, q, -1.0 / 6.0);
  const double sine = __builtin_fma(s * q, r, r);
  double c = __builtin_fma(q, 1.0 / 20922789888000.0, -1.0 / 87178291200.0);
  c = __builtin_fma(c, q, 1.0 / 479001600.0);
  c = __builtin_fma(c, q, -1.0 / 3628800.0);
  c = __builtin_fma(c, q, 1.0 / 40320.0);
  c = __builtin_fma(c, q, -1.0 / 720.0);
  c = __builtin_fma(c, q, 1.0 / 24.0);
  c = __builtin_fma(c, q, -0.5);
  const double cosine = __builtin_fma(c, q, 1.0);
  uint64_t quarter;
  __builtin_memcpy(&quarter, &t, sizeof quarter);
  const bool odd = (quarter & 1) != 0;
  const double x = odd ? sine : cosine;
  const double y = odd ? cosine : sine;
  return {((quarter + 1) & 2) != 0 ? -x : x, (quarter & 2) != 0 ? -y : y};
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
