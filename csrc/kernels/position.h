// Cosine and sine of a phase in float64, shared by the kernels of every instruction set and by
// CUDA's.
#pragma once

#include <cstdint>

#include "kernels/qualifier.h"

namespace encodec_fast::EF_ISA {

// Each is rounded once, to nearest; the device's names say so whatever flags it is compiled with.
#ifdef __CUDA_ARCH__
EF_BOTH inline double fused(double a, double b, double c) noexcept { return __fma_rn(a, b, c); }
EF_BOTH inline double plus(double a, double b) noexcept { return __dadd_rn(a, b); }
EF_BOTH inline double times(double a, double b) noexcept { return __dmul_rn(a, b); }
#else
EF_BOTH inline double fused(double a, double b, double c) noexcept {
  return __builtin_fma(a, b, c);
}
EF_BOTH inline double plus(double a, double b) noexcept { return a + b; }
EF_BOTH inline double times(double a, double b) noexcept { return a * b; }
#endif

EF_BOTH inline uint32_t low_bits(double x) noexcept {
#ifdef __CUDA_ARCH__
  return static_cast<uint32_t>(__double2loint(x));
#else
  uint64_t b;
  __builtin_memcpy(&b, &x, sizeof b);
  return static_cast<uint32_t>(b);
#endif
}

struct Turn {
  double cosine, sine;
};

// Cody and Waite: the phase minus a multiple of pi / 2, which is kept in two parts; then the Taylor
// polynomials on -pi / 4 .. pi / 4, whose error is below 1e-15.
EF_BOTH inline Turn turn(double phase) noexcept {
  constexpr double kShift = 0x1.8p52;  // adding it rounds to an integer in the low mantissa bits
  const double t = fused(phase, 0x1.45f306dc9c883p-1, kShift);
  const double n = plus(t, -kShift);
  double r = fused(n, -0x1.921fb54442d18p+0, phase);
  r = fused(n, -0x1.1a62633145c07p-54, r);
  const double q = times(r, r);
  double s = fused(q, -1.0 / 1307674368000.0, 1.0 / 6227020800.0);
  s = fused(s, q, -1.0 / 39916800.0);
  s = fused(s, q, 1.0 / 362880.0);
  s = fused(s, q, -1.0 / 5040.0);
  s = fused(s, q, 1.0 / 120.0);
  s = fused(s, q, -1.0 / 6.0);
  const double sine = fused(times(s, q), r, r);
  double c = fused(q, 1.0 / 20922789888000.0, -1.0 / 87178291200.0);
  c = fused(c, q, 1.0 / 479001600.0);
  c = fused(c, q, -1.0 / 3628800.0);
  c = fused(c, q, 1.0 / 40320.0);
  c = fused(c, q, -1.0 / 720.0);
  c = fused(c, q, 1.0 / 24.0);
  c = fused(c, q, -0.5);
  const double cosine = fused(c, q, 1.0);
  const uint32_t quarter = low_bits(t);
  const bool odd = (quarter & 1) != 0;
  const double x = odd ? sine : cosine;
  const double y = odd ? cosine : sine;
  return {((quarter + 1) & 2) != 0 ? -x : x, (quarter & 2) != 0 ? -y : y};
}

}  // namespace encodec_fast::EF_ISA
