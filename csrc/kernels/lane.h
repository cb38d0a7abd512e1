// A vector of one lane, with which elementary.h becomes CUDA's arithmetic: one thread is one lane.
// It runs on the host too, where tests hold it against the other vectors (kernels/vec.h).
#pragma once

#include <cstdint>

#include "kernels/qualifier.h"

namespace encodec_fast::EF_ISA {

inline constexpr int kLanes = 1;

struct Vec {
  float v;
};

EF_BOTH inline uint32_t bits_of(float x) noexcept {
#ifdef __CUDA_ARCH__
  return __float_as_uint(x);
#else
  uint32_t b;
  __builtin_memcpy(&b, &x, sizeof b);
  return b;
#endif
}

EF_BOTH inline float float_of(uint32_t b) noexcept {
#ifdef __CUDA_ARCH__
  return __uint_as_float(b);
#else
  float x;
  __builtin_memcpy(&x, &b, sizeof x);
  return x;
#endif
}

EF_BOTH inline Vec load(const float* p) noexcept { return {*p}; }
EF_BOTH inline void store(float* p, Vec x) noexcept { *p = x.v; }
EF_BOTH inline Vec broadcast(float x) noexcept { return {x}; }

// Each is rounded once, to nearest; the device's names say so whatever flags it is compiled with.
#ifdef __CUDA_ARCH__
EF_BOTH inline Vec fma(Vec a, Vec b, Vec c) noexcept { return {__fmaf_rn(a.v, b.v, c.v)}; }
EF_BOTH inline Vec operator+(Vec a, Vec b) noexcept { return {__fadd_rn(a.v, b.v)}; }
EF_BOTH inline Vec operator-(Vec a, Vec b) noexcept { return {__fsub_rn(a.v, b.v)}; }
EF_BOTH inline Vec operator*(Vec a, Vec b) noexcept { return {__fmul_rn(a.v, b.v)}; }
EF_BOTH inline Vec operator/(Vec a, Vec b) noexcept { return {__fdiv_rn(a.v, b.v)}; }
EF_BOTH inline Vec square_root(Vec x) noexcept { return {__fsqrt_rn(x.v)}; }
#else
EF_BOTH inline Vec fma(Vec a, Vec b, Vec c) noexcept { return {__builtin_fmaf(a.v, b.v, c.v)}; }
EF_BOTH inline Vec operator+(Vec a, Vec b) noexcept { return {a.v + b.v}; }
EF_BOTH inline Vec operator-(Vec a, Vec b) noexcept { return {a.v - b.v}; }
EF_BOTH inline Vec operator*(Vec a, Vec b) noexcept { return {a.v * b.v}; }
EF_BOTH inline Vec operator/(Vec a, Vec b) noexcept { return {a.v / b.v}; }
EF_BOTH inline Vec square_root(Vec x) noexcept { return {__builtin_sqrtf(x.v)}; }
#endif

EF_BOTH inline Vec larger(Vec a, Vec b) noexcept { return {a.v > b.v ? a.v : b.v}; }
EF_BOTH inline Vec smaller(Vec a, Vec b) noexcept { return {a.v < b.v ? a.v : b.v}; }
EF_BOTH inline Vec select_greater(Vec a, Vec b, Vec yes, Vec no) noexcept {
  return {a.v > b.v ? yes.v : no.v};
}
EF_BOTH inline Vec magnitude(Vec x) noexcept { return {float_of(bits_of(x.v) & 0x7fffffffu)}; }
EF_BOTH inline Vec with_sign_of(Vec x, Vec sign) noexcept {
  return {float_of(bits_of(x.v) | (bits_of(sign.v) & 0x80000000u))};
}
EF_BOTH inline Vec power_of_two(Vec shifted) noexcept {
  return {float_of((bits_of(shifted.v) << 23) + 0x3f800000u)};
}

}  // namespace encodec_fast::EF_ISA
