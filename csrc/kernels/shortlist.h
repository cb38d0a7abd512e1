// A first pass of the codebook search with 8-bit integers (AVX-512 VNNI: 64 products an
// instruction), which leaves few entries to score exactly. It never changes a code: an entry is
// dropped only where a bound on all errors proves that another one scores higher. For kernel
// sources.
//
// A row r is a q + d with 8-bit q, an entry e is b p + x with 8-bit p, and the score of the first
// pass is t = a b (q.p) - |e|^2 / 2. By Cauchy and Schwarz the exact score is within
// |d| |e| + |a q| |x| of t. What rounding adds on both sides is below 2^-24 * 4 (dim + 8) times
// |r| |e| + |e|^2 / 2: ShortlistPanel::error holds the first part beside |x|, RvqShortlist::slack
// the second. Norms are rounded up by a thousandth, far more than their own rounding.
#pragma once

#include "kernels/rvq.h"
#include "kernels/tile.h"

namespace encodec_fast::EF_ISA {

inline constexpr int kShortRows = 6;

// Panels whose entries are all scored at once: enough to hide the latency of an fma, and their
// pointers stay in registers.
inline constexpr int kRescored = 6;

struct ShortRow {
  alignas(64) uint8_t bytes[kMostShortDim];  // q + 128
  float step, rest, norm;                    // a, |d|, |a q| rounded up
};

// sum[i] += the four products of the bytes of x[i], unsigned, and of e[i], signed. The instruction
// by name: of the intrinsic GCC 12 makes copies of every sum.
inline void multiply_bytes(__m512i& sum, __m512i x, __m512i e) noexcept {
  asm("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(x), "v"(e));
}

inline float total(__m512 x) noexcept { return _mm512_reduce_add_ps(x); }

// False where the bound would not hold: a row that is too small, too large, or not finite.
inline bool quantise(const float* r, int64_t dim, ShortRow& row) noexcept {
  __m512 most = _mm512_setzero_ps();
  for (int64_t k = 0; k < dim; k += kLanes)
    most = _mm512_max_ps(most, _mm512_abs_ps(_mm512_loadu_ps(r + k)));
  const float peak = _mm512_reduce_max_ps(most);
  if (peak != 0.0f && !(peak >= kLeastShort && peak <= kMostShort)) return false;
  row.step = peak / 127.0f;
  const __m512 inverse = _mm512_set1_ps(peak == 0.0f ? 0.0f : 127.0f / peak);
  const __m512 step = _mm512_set1_ps(row.step);
  __m512 rest = _mm512_setzero_ps();
  __m512 norm = _mm512_setzero_ps();
  for (int64_t k = 0; k < dim; k += kLanes) {
    const __m512 x = _mm512_loadu_ps(r + k);
    const __m512i q = _mm512_cvtps_epi32(_mm512_mul_ps(x, inverse));
    const __m512i shifted = _mm512_add_epi32(q, _mm512_set1_epi32(128));
    _mm_store_si128(reinterpret_cast<__m128i*>(row.bytes + k), _mm512_cvtepi32_epi8(shifted));
    const __m512 near = _mm512_mul_ps(_mm512_cvtepi32_ps(q), step);
    const __m512 d = _mm512_sub_ps(x, near);
    rest = _mm512_fmadd_ps(d, d, rest);
    norm = _mm512_fmadd_ps(near, near, norm);
  }
  row.rest = kRoundedUp * _mm_cvtss_f32(_mm_sqrt_ss(_mm_set_ss(total(rest))));
  row.norm = kRoundedUp * _mm_cvtss_f32(_mm_sqrt_ss(_mm_set_ss(total(norm))));
  return row.rest <= kMostShort * kMostShortDim && row.norm <= kMostShort * kMostShortDim;
}

// The search of one codebook for up to kShortRows rows.
class Shortlist {
 public:
  static constexpr int kRows = kShortRows;

  Shortlist(const RvqCodebooks& books, int64_t q) noexcept
      : books_(books),
        shortlist_(books.shortlists[q]),
        panels_(books.padded_size / kPanel),
        exact_(books.panels + q * books.panel_floats),
        start_(books.half_norm + q * books.padded_size) {}

  // The best entry of each row, ties to the lowest index. False, and nothing found, where the bound
  // would not hold or leaves too much.
  bool run(const float* residual, int64_t rows, int64_t* winners) noexcept {
    residual_ = residual;
    for (int64_t r = 0; r < rows; ++r) {
      if (!quantise(residual + r * books_.dim, books_.dim, row_[r])) return false;
      best_[r] = _mm512_set1_ps(-__builtin_inff());
    }
    run_tiles(rows, panels_, false, *this);
    for (int64_t r = 0; r < rows; ++r) {
      top_[r] = -__builtin_inff();
      winners[r] = 0;
    }
    if (!list(rows)) return false;
    for (int64_t i = 0; i < count_; i += kRescored) score(i, winners);
    return true;
  }

  void begin(int64_t panel) noexcept { panel_ = panel; }

  // Not inlined: beside other code GCC 12 keeps the sums in memory.
  template <int R, int P>
  [[gnu::noinline]] void run() noexcept {
    const ShortlistPanel* const to = shortlist_.panels + panel_;
    const int8_t* const entries = shortlist_.bytes + panel_ * books_.dim * kPanel;
    const int64_t panel = books_.dim * kPanel;
    __m512i acc[R][P];
#pragma GCC unroll 8
    for (int p = 0; p < P; ++p) {
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) acc[r][p] = _mm512_load_si512(to[p].start);
    }
    for (int64_t k = 0; k < books_.dim; k += 4) {
      __m512i e[P];
#pragma GCC unroll 8
      for (int p = 0; p < P; ++p) e[p] = _mm512_load_si512(entries + p * panel + k * kPanel);
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) {
        int32_t four;
        __builtin_memcpy(&four, row_[r].bytes + k, sizeof four);
        const __m512i x = _mm512_set1_epi32(four);
#pragma GCC unroll 8
        for (int p = 0; p < P; ++p) multiply_bytes(acc[r][p], x, e[p]);
      }
    }
#pragma GCC unroll 8
    for (int p = 0; p < P; ++p) {
      const __m512 half_norm = _mm512_loadu_ps(start_ + (panel_ + p) * kPanel);
      const __m512 step = _mm512_load_ps(to[p].step);
      const __m512 norm = _mm512_load_ps(to[p].norm);
      const __m512 error = _mm512_load_ps(to[p].error);
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) {
        const __m512 dot = _mm512_mul_ps(_mm512_cvtepi32_ps(acc[r][p]), step);
        const __m512 score = _mm512_fmadd_ps(_mm512_set1_ps(row_[r].step), dot, half_norm);
        const __m512 off = _mm512_fmadd_ps(_mm512_set1_ps(row_[r].rest), norm,
                                           _mm512_mul_ps(_mm512_set1_ps(row_[r].norm), error));
        _mm512_store_ps(most_[r] + (panel_ + p) * kPanel, _mm512_add_ps(score, off));
        best_[r] = _mm512_max_ps(best_[r], _mm512_sub_ps(score, off));
      }
    }
  }

 private:
  struct Pair {
    int16_t row, panel;
  };

  // Lists the panels that hold an entry which may be the best of its row. False where they are so
  // many that the plain search is faster.
  bool list(int64_t rows) noexcept {
    const int64_t most = rows * (1 + panels_ / 4);
    count_ = 0;
    for (int64_t r = 0; r < rows; ++r) {
      const __m512 least = _mm512_set1_ps(_mm512_reduce_max_ps(best_[r]) - shortlist_.slack);
      const auto at = [&](int64_t p) { return _mm512_load_ps(most_[r] + p * kPanel); };
      const auto check = [&](int64_t p) {
        if (_mm512_cmp_ps_mask(at(p), least, _CMP_GE_OQ) != 0)
          pairs_[count_++] = {static_cast<int16_t>(r), static_cast<int16_t>(p)};
      };
      int64_t p = 0;
      for (; p + 4 <= panels_; p += 4) {
        const __m512 both = _mm512_max_ps(at(p), at(p + 1));
        const __m512 four = _mm512_max_ps(both, _mm512_max_ps(at(p + 2), at(p + 3)));
        if (_mm512_cmp_ps_mask(four, least, _CMP_GE_OQ) == 0) continue;
        for (int64_t i = p; i < p + 4; ++i) check(i);
      }
      for (; p < panels_; ++p) check(p);
      if (count_ > most) return false;
    }
    return true;
  }

  // Scores all entries of the next listed panels exactly. Those of a row come in rising order, so a
  // later one must be better to win. Past the end of the list the first one is scored again.
  void score(int64_t first, int64_t* winners) noexcept {
    Pair pairs[kRescored];
    const float* row[kRescored];
    const float* panel[kRescored];
    __m512 acc[kRescored];
#pragma GCC unroll 8
    for (int i = 0; i < kRescored; ++i) {
      pairs[i] = pairs_[first + i < count_ ? first + i : first];
      row[i] = residual_ + pairs[i].row * books_.dim;
      panel[i] = exact_ + pairs[i].panel * books_.dim * kPanel;
      acc[i] = _mm512_loadu_ps(start_ + pairs[i].panel * kPanel);
    }
    for (int64_t k = 0; k < books_.dim; ++k) {
#pragma GCC unroll 8
      for (int i = 0; i < kRescored; ++i) {
        const __m512 x = _mm512_set1_ps(row[i][k]);
        acc[i] = _mm512_fmadd_ps(x, _mm512_loadu_ps(panel[i] + k * kPanel), acc[i]);
      }
    }
    for (int i = 0; i < kRescored; ++i) {
      const float top = _mm512_reduce_max_ps(acc[i]);
      if (!(top > top_[pairs[i].row])) continue;
      const __mmask16 equal = _mm512_cmp_ps_mask(acc[i], _mm512_set1_ps(top), _CMP_EQ_OQ);
      top_[pairs[i].row] = top;
      winners[pairs[i].row] = pairs[i].panel * kPanel + __builtin_ctz(equal);
    }
  }

  const RvqCodebooks& books_;
  const RvqShortlist& shortlist_;
  const int64_t panels_;
  const float* exact_;
  const float* start_;
  const float* residual_ = nullptr;
  int64_t panel_ = 0;
  ShortRow row_[kShortRows];
  __m512 best_[kShortRows];  // what the best entry scores at least, by column
  float top_[kShortRows];
  int64_t count_ = 0;
  Pair pairs_[kShortRows * kMostShortSize / kPanel];
  alignas(64) float most_[kShortRows][kMostShortSize];  // what each entry scores at most
};

}  // namespace encodec_fast::EF_ISA
