// ELU, GELU, exp, sigmoid and tanh of vectors, built of +, *, /, fma and integer bit operations
// only: no C library call, same bits everywhere. For kernel sources.
#pragma once

#include "kernels/qualifier.h"
#ifdef EF_ONE_LANE
#include "kernels/lane.h"
#else
#include "kernels/vec.h"
#endif

namespace encodec_fast::EF_ISA {

// x = n ln2 + r with |r| <= ln2 / 2: r, and 1.5 * 2^23 + n, which power_of_two takes.
struct Reduced {
  Vec r, shifted;
};

EF_BOTH inline Reduced reduce(Vec x) noexcept {
  // Adding 1.5 * 2^23 rounds to an integer held in the low mantissa bits.
  const Vec shift = broadcast(12582912.0f);
  const Vec t = fma(x, broadcast(1.44269504f), shift);
  const Vec n = t - shift;
  // ln2 in two parts; the first has trailing zeros, n * part is exact.
  const Vec r = fma(n, broadcast(-0.693145752f), x);
  return {fma(n, broadcast(-1.42860677e-6f), r), t};
}

// exp(r) - 1 = r + r^2 (1/2 + r/6 + ...): Taylor to r^7, error below 1e-8 relative for |r| <= ln2 /
// 2.
EF_BOTH inline Vec expm1_near_zero(Vec r) noexcept {
  Vec p = fma(broadcast(1.98412698e-4f), r, broadcast(1.38888889e-3f));
  p = fma(p, r, broadcast(8.33333333e-3f));
  p = fma(p, r, broadcast(4.16666667e-2f));
  p = fma(p, r, broadcast(1.66666667e-1f));
  p = fma(p, r, broadcast(0.5f));
  return fma(p, r * r, r);
}

// exp(x) - 1 for x <= 0, within 2 ulp: 2^n (exp(r) - 1) + (2^n - 1), which keeps full precision
// near zero, where n is 0. Below -60, exp(x) is far below the last bit of 1.
EF_BOTH inline Vec expm1_negative(Vec x) noexcept {
  const Reduced reduced = reduce(larger(broadcast(-60.0f), x));
  const Vec scale = power_of_two(reduced.shifted);
  return fma(expm1_near_zero(reduced.r), scale, scale - broadcast(1.0f));
}

// exp(high + low) for high in -87..0 and |low| below 1e-5, within 2 ulp; below -87 it is exp(-87).
EF_BOTH inline Vec exp_negative(Vec high, Vec low) noexcept {
  const Reduced reduced = reduce(larger(broadcast(-87.0f), high));
  const Vec scale = power_of_two(reduced.shifted);
  return fma(expm1_near_zero(reduced.r + low), scale, scale);
}

EF_BOTH inline Vec elu(Vec x) noexcept {
  const Vec zero = broadcast(0.0f);
  const Vec e = expm1_negative(smaller(zero, x));
  return select_greater(x, zero, x, e);
}

// tanh|x| = -e / (e + 2) with e = exp(-2|x|) - 1 in (-1, 0].
EF_BOTH inline Vec tanh(Vec x) noexcept {
  const Vec e = expm1_negative(broadcast(-2.0f) * magnitude(x));
  return with_sign_of((broadcast(-1.0f) * e) / (e + broadcast(2.0f)), x);
}

// With e = exp(-|x|) - 1: sigmoid|x| = 1 / (2 + e), sigmoid(-|x|) = (1 + e) / (2 + e).
EF_BOTH inline Vec sigmoid(Vec x) noexcept {
  const Vec one = broadcast(1.0f);
  const Vec e = expm1_negative(broadcast(-1.0f) * magnitude(x));
  return select_greater(broadcast(0.0f), x, one + e, one) / (broadcast(2.0f) + e);
}

// x Phi(x), Phi being the normal distribution: the GELU with erf, within 6 ulp. With t = |x|,
// Phi(-t) = exp(-t^2 / 2) q(t), where q is half the scaled complementary error function of
// t / sqrt(2): w = 1 / (t + 3) times a polynomial in w, fitted on 0..13 with a relative error of
// 4e-8. Below -12.5 the result is 0 (it would be -5e-35).
EF_BOTH inline Vec gelu(Vec x) noexcept {
  const Vec zero = broadcast(0.0f);
  const Vec t = smaller(broadcast(13.0f), magnitude(x));
  const Vec w = broadcast(1.0f) / (t + broadcast(3.0f));
  const Vec v = fma(w, broadcast(7.3846154f), broadcast(-1.4615384f));  // -1..1
  Vec p = fma(broadcast(-5.215119e-5f), v, broadcast(1.17629934e-4f));
  p = fma(p, v, broadcast(5.779081e-4f));
  p = fma(p, v, broadcast(-1.8218006e-3f));
  p = fma(p, v, broadcast(-7.069701e-3f));
  p = fma(p, v, broadcast(1.9920705e-2f));
  p = fma(p, v, broadcast(0.1676522f));
  p = fma(p, v, broadcast(0.48770818f));
  p = fma(p, v, broadcast(0.8329671f));
  const Vec square = t * t;
  const Vec half = broadcast(-0.5f);
  const Vec rest = fma(t, t, broadcast(-1.0f) * square);  // what rounding took from the square
  const Vec below = p * w * exp_negative(half * square, half * rest);
  const Vec y = select_greater(x, zero, fma(broadcast(-1.0f) * x, below, x), x * below);
  return select_greater(broadcast(-12.5f), x, zero, y);
}

}  // namespace encodec_fast::EF_ISA
