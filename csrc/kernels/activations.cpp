#include "kernels/activations.h"

namespace encodec_fast::EF_ISA {
namespace {

inline uint32_t bits_of(float x) noexcept {
  uint32_t b;
  __builtin_memcpy(&b, &x, sizeof b);
  return b;
}

inline float float_of(uint32_t b) noexcept {
  float x;
  __builtin_memcpy(&x, &b, sizeof x);
  return x;
}

// exp(x) - 1 for x <= 0, within 2 ulp. x = n ln2 + r with |r| <= ln2 / 2; then
// exp(x) - 1 = 2^n (exp(r) - 1) + (2^n - 1), which keeps full precision near zero, where n is 0.
inline float expm1_negative(float x) noexcept {
  constexpr float kShift =
      12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer held in the low mantissa bits
  x = x < -60.0f ? -60.0f : x;  // exp(-60) is far below the last bit of 1
  const float t = __builtin_fmaf(x, 1.44269504f, kShift);
  const float n = t - kShift;
  float r = __builtin_fmaf(n, -0.693145752f,
                           x);  // ln2 in two parts; the first has trailing zeros, n * part is exact
  r = __builtin_fmaf(n, -1.42860677e-6f, r);
  // exp(r) - 1 = r + r^2 (1/2 + r/6 + ...): Taylor to r^7, error below 1e-8 relative on the
  // interval.
  float p = 1.98412698e-4f;
  p = __builtin_fmaf(p, r, 1.38888889e-3f);
  p = __builtin_fmaf(p, r, 8.33333333e-3f);
  p = __builtin_fmaf(p, r, 4.16666667e-2f);
  p = __builtin_fmaf(p, r, 1.66666667e-1f);
  p = __builtin_fmaf(p, r, 0.5f);
  const float em1 = __builtin_fmaf(p, r * r, r);
  const float scale = float_of((bits_of(t) << 23) + 0x3f800000u);  // 2^n
  return __builtin_fmaf(em1, scale, scale - 1.0f);
}

inline float magnitude(float x) noexcept { return float_of(bits_of(x) & 0x7fffffffu); }

inline float with_sign_of(float x, float sign) noexcept {
  return float_of(bits_of(x) | (bits_of(sign) & 0x80000000u));
}

// tanh|x| = -e / (e + 2) with e = exp(-2|x|) - 1 in (-1, 0].
inline float tanh_exact(float x) noexcept {
  const float e = expm1_negative(-2.0f * magnitude(x));
  return with_sign_of(-e / (e + 2.0f), x);
}

// With e = exp(-|x|) - 1: sigmoid|x| = 1 / (2 + e), sigmoid(-|x|) = (1 + e) / (2 + e).
inline float sigmoid(float x) noexcept {
  const float e = expm1_negative(-magnitude(x));
  return (x < 0.0f ? 1.0f + e : 1.0f) / (2.0f + e);
}

}  // namespace

void elu(const float* x, float* y, int64_t n) noexcept {
  for (int64_t i = 0; i < n; ++i) {
    const float v = x[i];
    const float e = expm1_negative(v > 0.0f ? 0.0f : v);
    y[i] = v > 0.0f ? v : e;
  }
}

void lstm_cell(const float* gates, float* cell, float* out, int64_t hidden) noexcept {
  for (int64_t j = 0; j < hidden; ++j) {
    const float i = sigmoid(gates[j]);
    const float f = sigmoid(gates[hidden + j]);
    const float g = tanh_exact(gates[2 * hidden + j]);
    const float o = sigmoid(gates[3 * hidden + j]);
    const float c = __builtin_fmaf(f, cell[j], i * g);
    cell[j] = c;
    out[j] = o * tanh_exact(c);
  }
}

}  // namespace encodec_fast::EF_ISA
