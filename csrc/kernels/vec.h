// Eight float lanes. The same kernel sources are compiled once per instruction set; this type is
// all that differs.
//
// Everything lives in a namespace named after the instruction set: two copies of one symbol would
// let the linker keep the copy with the wider instructions for every caller.
#pragma once

#if defined(__AVX2__) && defined(__FMA__)
#include <immintrin.h>
#endif

namespace encodec_fast::EF_ISA {

inline constexpr int kLanes = 8;

#if defined(__AVX2__) && defined(__FMA__)

struct Vec {
  __m256 v;
};

inline Vec load(const float* p) noexcept { return {_mm256_loadu_ps(p)}; }
inline void store(float* p, Vec x) noexcept { _mm256_storeu_ps(p, x.v); }
inline Vec broadcast(float x) noexcept { return {_mm256_set1_ps(x)}; }
inline Vec fma(Vec a, Vec b, Vec c) noexcept { return {_mm256_fmadd_ps(a.v, b.v, c.v)}; }
inline Vec add(Vec a, Vec b) noexcept { return {_mm256_add_ps(a.v, b.v)}; }

#else

struct Vec {
  float v[kLanes];
};

inline Vec load(const float* p) noexcept {
  Vec r;
  for (int i = 0; i < kLanes; ++i) r.v[i] = p[i];
  return r;
}
inline void store(float* p, Vec x) noexcept {
  for (int i = 0; i < kLanes; ++i) p[i] = x.v[i];
}
inline Vec broadcast(float x) noexcept {
  Vec r;
  for (int i = 0; i < kLanes; ++i) r.v[i] = x;
  return r;
}
// Without hardware support this is a call into the C library, correctly rounded and slow: the
// oracle.
inline Vec fma(Vec a, Vec b, Vec c) noexcept {
  Vec r;
  for (int i = 0; i < kLanes; ++i) r.v[i] = __builtin_fmaf(a.v[i], b.v[i], c.v[i]);
  return r;
}
inline Vec add(Vec a, Vec b) noexcept {
  Vec r;
  for (int i = 0; i < kLanes; ++i) r.v[i] = a.v[i] + b.v[i];
  return r;
}

#endif

}  // namespace encodec_fast::EF_ISA
