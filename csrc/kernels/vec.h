// A vector of float lanes: eight, or sixteen with AVX-512. The same kernel sources are compiled
// once per instruction set; this type is all that differs. Every operation is exact IEEE arithmetic
// per lane, so no result depends on the width.
//
// larger and smaller give the second where neither is (equal, or not a number). load_pair reads
// bfloat16, the upper half of a float32: the even values and the odd ones. truncate rounds towards
// zero; the sign of a zero may differ between levels. sum_lanes, sums_of_rows
// (kLanes vectors to their sums) and prefix_sums (lane i: the sum of lanes 0..i) add in orders of
// their own: for sums that are exact in any. last_lane is its copies.
//
// Everything lives in a namespace named after the instruction set: two copies of one symbol would
// let the linker keep the copy with the wider instructions for every caller.
#pragma once

#include <cstdint>

#if defined(__AVX2__) && defined(__FMA__)
#include <immintrin.h>
#elif defined(__SSE2__)
#include <xmmintrin.h>
#endif

namespace encodec_fast::EF_ISA {

#if defined(__AVX512F__)

inline constexpr int kLanes = 16;

struct Vec {
  __m512 v;
};
struct Pair {
  Vec even, odd;
};

inline Vec load(const float* p) noexcept { return {_mm512_loadu_ps(p)}; }
inline Pair load_pair(const uint16_t* p) noexcept {
  const __m512i words = _mm512_loadu_si512(p);
  return {{_mm512_castsi512_ps(_mm512_slli_epi32(words, 16))},
          {_mm512_castsi512_ps(_mm512_and_si512(words, _mm512_set1_epi32(-65536)))}};
}
inline void store(float* p, Vec x) noexcept { _mm512_storeu_ps(p, x.v); }
inline Vec broadcast(float x) noexcept { return {_mm512_set1_ps(x)}; }
inline Vec fma(Vec a, Vec b, Vec c) noexcept { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
inline Vec operator+(Vec a, Vec b) noexcept { return {_mm512_add_ps(a.v, b.v)}; }
inline Vec operator-(Vec a, Vec b) noexcept { return {_mm512_sub_ps(a.v, b.v)}; }
inline Vec operator*(Vec a, Vec b) noexcept { return {_mm512_mul_ps(a.v, b.v)}; }
inline Vec operator/(Vec a, Vec b) noexcept { return {_mm512_div_ps(a.v, b.v)}; }
inline Vec larger(Vec a, Vec b) noexcept { return {_mm512_max_ps(a.v, b.v)}; }
inline Vec smaller(Vec a, Vec b) noexcept { return {_mm512_min_ps(a.v, b.v)}; }
inline Vec select_greater(Vec a, Vec b, Vec yes, Vec no) noexcept {
  return {_mm512_mask_blend_ps(_mm512_cmp_ps_mask(a.v, b.v, _CMP_GT_OQ), no.v, yes.v)};
}
inline Vec magnitude(Vec x) noexcept {
  const __m512i bits = _mm512_castps_si512(x.v);
  return {_mm512_castsi512_ps(_mm512_and_si512(bits, _mm512_set1_epi32(0x7fffffff)))};
}
inline Vec with_sign_of(Vec x, Vec sign) noexcept {
  const __m512i bits = _mm512_and_si512(_mm512_castps_si512(sign.v), _mm512_set1_epi32(INT32_MIN));
  return {_mm512_castsi512_ps(_mm512_or_si512(_mm512_castps_si512(x.v), bits))};
}
inline Vec truncate(Vec x) noexcept {
  return {_mm512_roundscale_ps(x.v, _MM_FROUND_TO_ZERO | _MM_FROUND_NO_EXC)};
}
inline float sum_lanes(Vec x) noexcept { return _mm512_reduce_add_ps(x.v); }
inline Vec sums_of_rows(const Vec* row) noexcept {
  __m512 pair[8];  // of two rows in turn, lanes 0 and 2, 1 and 3 of each quarter
  for (int i = 0; i < 8; ++i) {
    pair[i] = _mm512_add_ps(_mm512_unpacklo_ps(row[2 * i].v, row[2 * i + 1].v),
                            _mm512_unpackhi_ps(row[2 * i].v, row[2 * i + 1].v));
  }
  __m512 four[4];  // of four rows in turn, each quarter
  for (int i = 0; i < 4; ++i) {
    four[i] = _mm512_add_ps(_mm512_shuffle_ps(pair[2 * i], pair[2 * i + 1], 0x44),
                            _mm512_shuffle_ps(pair[2 * i], pair[2 * i + 1], 0xee));
  }
  __m512 eight[2];  // quarters 0 and 2, 1 and 3 of four rows; then of the next four
  for (int i = 0; i < 2; ++i) {
    eight[i] = _mm512_add_ps(_mm512_shuffle_f32x4(four[2 * i], four[2 * i + 1], 0x44),
                             _mm512_shuffle_f32x4(four[2 * i], four[2 * i + 1], 0xee));
  }
  return {_mm512_add_ps(_mm512_shuffle_f32x4(eight[0], eight[1], 0x88),
                        _mm512_shuffle_f32x4(eight[0], eight[1], 0xdd))};
}
template <int kShift>
inline __m512 lanes_up(__m512 x) noexcept {
  const __m512i zero = _mm512_setzero_si512();
  return _mm512_castsi512_ps(_mm512_alignr_epi32(_mm512_castps_si512(x), zero, 16 - kShift));
}
inline Vec prefix_sums(Vec x) noexcept {
  __m512 sum = _mm512_add_ps(x.v, lanes_up<1>(x.v));
  sum = _mm512_add_ps(sum, lanes_up<2>(sum));
  sum = _mm512_add_ps(sum, lanes_up<4>(sum));
  return {_mm512_add_ps(sum, lanes_up<8>(sum))};
}
inline Vec last_lane(Vec x) noexcept { return {_mm512_permutexvar_ps(_mm512_set1_epi32(15), x.v)}; }
inline int count_not_above(Vec x, Vec limit) noexcept {
  return __builtin_popcount(_mm512_cmp_ps_mask(x.v, limit.v, _CMP_LE_OQ));
}
inline Vec power_of_two(Vec shifted) noexcept {
  const __m512i bits = _mm512_slli_epi32(_mm512_castps_si512(shifted.v), 23);
  return {_mm512_castsi512_ps(_mm512_add_epi32(bits, _mm512_set1_epi32(0x3f800000)))};
}

#elif defined(__AVX2__) && defined(__FMA__)

inline constexpr int kLanes = 8;

struct Vec {
  __m256 v;
};
struct Pair {
  Vec even, odd;
};

inline Vec load(const float* p) noexcept { return {_mm256_loadu_ps(p)}; }
inline Pair load_pair(const uint16_t* p) noexcept {
  const __m256i words = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  return {{_mm256_castsi256_ps(_mm256_slli_epi32(words, 16))},
          {_mm256_castsi256_ps(_mm256_and_si256(words, _mm256_set1_epi32(-65536)))}};
}
inline void store(float* p, Vec x) noexcept { _mm256_storeu_ps(p, x.v); }
inline Vec broadcast(float x) noexcept { return {_mm256_set1_ps(x)}; }
inline Vec fma(Vec a, Vec b, Vec c) noexcept { return {_mm256_fmadd_ps(a.v, b.v, c.v)}; }
inline Vec operator+(Vec a, Vec b) noexcept { return {_mm256_add_ps(a.v, b.v)}; }
inline Vec operator-(Vec a, Vec b) noexcept { return {_mm256_sub_ps(a.v, b.v)}; }
inline Vec operator*(Vec a, Vec b) noexcept { return {_mm256_mul_ps(a.v, b.v)}; }
inline Vec operator/(Vec a, Vec b) noexcept { return {_mm256_div_ps(a.v, b.v)}; }
inline Vec larger(Vec a, Vec b) noexcept { return {_mm256_max_ps(a.v, b.v)}; }
inline Vec smaller(Vec a, Vec b) noexcept { return {_mm256_min_ps(a.v, b.v)}; }
inline Vec select_greater(Vec a, Vec b, Vec yes, Vec no) noexcept {
  return {_mm256_blendv_ps(no.v, yes.v, _mm256_cmp_ps(a.v, b.v, _CMP_GT_OQ))};
}
inline Vec magnitude(Vec x) noexcept { return {_mm256_andnot_ps(_mm256_set1_ps(-0.0f), x.v)}; }
inline Vec with_sign_of(Vec x, Vec sign) noexcept {
  return {_mm256_or_ps(x.v, _mm256_and_ps(_mm256_set1_ps(-0.0f), sign.v))};
}
inline Vec truncate(Vec x) noexcept {
  return {_mm256_round_ps(x.v, _MM_FROUND_TO_ZERO | _MM_FROUND_NO_EXC)};
}
inline float sum_lanes(Vec x) noexcept {
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(x.v), _mm256_extractf128_ps(x.v, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}
inline Vec sums_of_rows(const Vec* row) noexcept {
  __m256 pair[4];  // of two rows in turn, lanes 0 and 2, 1 and 3 of each half
  for (int i = 0; i < 4; ++i) {
    pair[i] = _mm256_add_ps(_mm256_unpacklo_ps(row[2 * i].v, row[2 * i + 1].v),
                            _mm256_unpackhi_ps(row[2 * i].v, row[2 * i + 1].v));
  }
  __m256 four[2];  // of four rows in turn, each half
  for (int i = 0; i < 2; ++i) {
    four[i] = _mm256_add_ps(_mm256_shuffle_ps(pair[2 * i], pair[2 * i + 1], 0x44),
                            _mm256_shuffle_ps(pair[2 * i], pair[2 * i + 1], 0xee));
  }
  return {_mm256_add_ps(_mm256_permute2f128_ps(four[0], four[1], 0x20),
                        _mm256_permute2f128_ps(four[0], four[1], 0x31))};
}
template <int kShift>
inline __m256 lanes_up(__m256 x) noexcept {  // within each half
  return _mm256_castsi256_ps(_mm256_slli_si256(_mm256_castps_si256(x), 4 * kShift));
}
inline Vec prefix_sums(Vec x) noexcept {
  __m256 sum = _mm256_add_ps(x.v, lanes_up<1>(x.v));
  sum = _mm256_add_ps(sum, lanes_up<2>(sum));
  const __m256 low = _mm256_permute2f128_ps(sum, sum, 0x08);  // as the upper half, zero below
  return {_mm256_add_ps(sum, _mm256_shuffle_ps(low, low, 0xff))};
}
inline Vec last_lane(Vec x) noexcept {
  const __m256 high = _mm256_permute2f128_ps(x.v, x.v, 0x11);
  return {_mm256_shuffle_ps(high, high, 0xff)};
}
inline int count_not_above(Vec x, Vec limit) noexcept {
  return __builtin_popcount(
      static_cast<unsigned>(_mm256_movemask_ps(_mm256_cmp_ps(x.v, limit.v, _CMP_LE_OQ))));
}
inline Vec power_of_two(Vec shifted) noexcept {
  const __m256i bits = _mm256_slli_epi32(_mm256_castps_si256(shifted.v), 23);
  return {_mm256_castsi256_ps(_mm256_add_epi32(bits, _mm256_set1_epi32(0x3f800000)))};
}

#else

inline constexpr int kLanes = 8;

struct Vec {
  float v[kLanes];
};
struct Pair {
  Vec even, odd;
};

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

// Calls f(lane) for each lane.
template <typename F>
inline Vec lanes(F f) noexcept {
  Vec r;
  for (int i = 0; i < kLanes; ++i) r.v[i] = f(i);
  return r;
}

inline Vec load(const float* p) noexcept {
  return lanes([&](int i) { return p[i]; });
}
inline Pair load_pair(const uint16_t* p) noexcept {
  return {lanes([&](int i) { return float_of(static_cast<uint32_t>(p[2 * i]) << 16); }),
          lanes([&](int i) { return float_of(static_cast<uint32_t>(p[2 * i + 1]) << 16); })};
}
inline void store(float* p, Vec x) noexcept {
  for (int i = 0; i < kLanes; ++i) p[i] = x.v[i];
}
inline Vec broadcast(float x) noexcept {
  return lanes([&](int) { return x; });
}
// Without hardware support this is a call into the C library, correctly rounded and slow: the
// oracle.
inline Vec fma(Vec a, Vec b, Vec c) noexcept {
  return lanes([&](int i) { return __builtin_fmaf(a.v[i], b.v[i], c.v[i]); });
}
inline Vec operator+(Vec a, Vec b) noexcept {
  return lanes([&](int i) { return a.v[i] + b.v[i]; });
}
inline Vec operator-(Vec a, Vec b) noexcept {
  return lanes([&](int i) { return a.v[i] - b.v[i]; });
}
inline Vec operator*(Vec a, Vec b) noexcept {
  return lanes([&](int i) { return a.v[i] * b.v[i]; });
}
inline Vec operator/(Vec a, Vec b) noexcept {
  return lanes([&](int i) { return a.v[i] / b.v[i]; });
}
inline Vec larger(Vec a, Vec b) noexcept {
  return lanes([&](int i) { return a.v[i] > b.v[i] ? a.v[i] : b.v[i]; });
}
inline Vec smaller(Vec a, Vec b) noexcept {
  return lanes([&](int i) { return a.v[i] < b.v[i] ? a.v[i] : b.v[i]; });
}
inline Vec select_greater(Vec a, Vec b, Vec yes, Vec no) noexcept {
  return lanes([&](int i) { return a.v[i] > b.v[i] ? yes.v[i] : no.v[i]; });
}
inline Vec magnitude(Vec x) noexcept {
  return lanes([&](int i) { return float_of(bits_of(x.v[i]) & 0x7fffffffu); });
}
inline Vec with_sign_of(Vec x, Vec sign) noexcept {
  return lanes(
      [&](int i) { return float_of(bits_of(x.v[i]) | (bits_of(sign.v[i]) & 0x80000000u)); });
}
inline Vec truncate(Vec x) noexcept {
  return lanes([&](int i) {
    const float v = x.v[i];  // 2^23 and beyond are whole; not a number fails the comparison, too
    return v > -8388608.0f && v < 8388608.0f ? static_cast<float>(static_cast<int32_t>(v)) : v;
  });
}
inline float sum_lanes(Vec x) noexcept {
  for (int width = kLanes / 2; width > 0; width /= 2) {
    for (int i = 0; i < width; ++i) x.v[i] += x.v[i + width];
  }
  return x.v[0];
}
inline Vec sums_of_rows(const Vec* row) noexcept {
  return lanes([&](int i) { return sum_lanes(row[i]); });
}
inline Vec prefix_sums(Vec x) noexcept {
  for (int i = 1; i < kLanes; ++i) x.v[i] += x.v[i - 1];
  return x;
}
inline Vec last_lane(Vec x) noexcept {
  return lanes([&](int) { return x.v[kLanes - 1]; });
}
inline int count_not_above(Vec x, Vec limit) noexcept {
  int count = 0;
  for (int i = 0; i < kLanes; ++i) count += x.v[i] <= limit.v[i] ? 1 : 0;
  return count;
}
inline Vec power_of_two(Vec shifted) noexcept {
  return lanes([&](int i) { return float_of((bits_of(shifted.v[i]) << 23) + 0x3f800000u); });
}

#endif

// to[j * to_stride + i] = from[i * from_stride + j], i and j below 4.
inline void transpose_4x4(const float* from, int64_t from_stride, float* to,
                          int64_t to_stride) noexcept {
#if defined(__SSE2__)
  __m128 row[4];
  for (int i = 0; i < 4; ++i) row[i] = _mm_loadu_ps(from + i * from_stride);
  _MM_TRANSPOSE4_PS(row[0], row[1], row[2], row[3]);
  for (int i = 0; i < 4; ++i) _mm_storeu_ps(to + i * to_stride, row[i]);
#else
  for (int i = 0; i < 4; ++i) {
    for (int j = 0; j < 4; ++j) to[j * to_stride + i] = from[i * from_stride + j];
  }
#endif
}

// The first `count` lanes; the others are zero, and are not stored.
inline Vec load_part(const float* p, int64_t count) noexcept {
  float row[kLanes] = {};
  for (int64_t i = 0; i < count; ++i) row[i] = p[i];
  return load(row);
}
inline void store_part(float* p, Vec x, int64_t count) noexcept {
  float row[kLanes];
  store(row, x);
  for (int64_t i = 0; i < count; ++i) p[i] = row[i];
}

}  // namespace encodec_fast::EF_ISA
