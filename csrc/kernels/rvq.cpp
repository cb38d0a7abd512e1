#include "kernels/rvq.h"

#include "kernels/gemm.h"
#include "kernels/vec.h"

namespace encodec_fast::EF_ISA {
namespace {

constexpr int kRows = 6;

// Best score and index of each of the 16 columns of a panel, for a few rows.
struct Best {
  float score[kRows][kPanel];
  int32_t index[kRows][kPanel];
};

template <int R>
void score_panel(const RvqCodebooks& b, const float* w, const float* init, const float* residual,
                 int32_t first, Best& best) noexcept {
  Vec acc[R][2];
  for (int r = 0; r < R; ++r) {
    acc[r][0] = load(init);
    acc[r][1] = load(init + kLanes);
  }
  for (int64_t k = 0; k < b.dim; ++k, w += kPanel) {
    const Vec w0 = load(w);
    const Vec w1 = load(w + kLanes);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const Vec x = broadcast(residual[r * b.dim + k]);
      acc[r][0] = fma(x, w0, acc[r][0]);
      acc[r][1] = fma(x, w1, acc[r][1]);
    }
  }
  for (int r = 0; r < R; ++r) {
    float score[kPanel];
    store(score, acc[r][0]);
    store(score + kLanes, acc[r][1]);
    for (int32_t j = 0; j < kPanel; ++j) {
      const bool better = score[j] > best.score[r][j];
      best.score[r][j] = better ? score[j] : best.score[r][j];
      best.index[r][j] = better ? first + j : best.index[r][j];
    }
  }
}

template <int R>
void search(const RvqCodebooks& b, int64_t q, float* residual, uint16_t* codes) noexcept {
  Best best;
  for (int r = 0; r < R; ++r) {
    for (int j = 0; j < kPanel; ++j) {
      best.score[r][j] = -__builtin_inff();
      best.index[r][j] = 0;  // what a row of NaN gets: a valid index, whatever the input
    }
  }
  const float* w = b.panels + q * b.panel_floats;
  const float* init = b.half_norm + q * b.padded_size;
  for (int64_t n = 0; n < b.size; n += kPanel) {
    score_panel<R>(b, w + n * b.dim, init + n, residual, static_cast<int32_t>(n), best);
  }
  for (int r = 0; r < R; ++r) {
    float top = best.score[r][0];
    int32_t index = best.index[r][0];
    for (int j = 1; j < kPanel; ++j) {
      const bool better =
          best.score[r][j] > top || (best.score[r][j] == top && best.index[r][j] < index);
      top = better ? best.score[r][j] : top;
      index = better ? best.index[r][j] : index;
    }
    codes[r] = static_cast<uint16_t>(index);
    const float* entry = b.entries + (q * b.size + index) * b.dim;
    for (int64_t k = 0; k < b.dim; ++k) residual[r * b.dim + k] -= entry[k];
  }
}

}  // namespace

void rvq_encode(const RvqCodebooks& b, float* residual, int64_t rows, int64_t n_q, uint16_t* codes,
                int64_t code_stride) noexcept {
  // A codebook (half a megabyte) stays in cache while all rows pass over it.
  for (int64_t q = 0; q < n_q; ++q) {
    int64_t i = 0;
    uint16_t* out = codes + q * code_stride;
    for (; i + kRows <= rows; i += kRows) search<kRows>(b, q, residual + i * b.dim, out + i);
    for (; i < rows; ++i) search<1>(b, q, residual + i * b.dim, out + i);
  }
}

void rvq_decode(const RvqCodebooks& b, const uint16_t* codes, int64_t code_stride, int64_t rows,
                int64_t n_q, float* latent) noexcept {
  for (int64_t i = 0; i < rows; ++i) {
    float* out = latent + i * b.dim;
    for (int64_t k = 0; k < b.dim; ++k) out[k] = 0.0f;
    for (int64_t q = 0; q < n_q; ++q) {
      const float* entry = b.entries + (q * b.size + codes[q * code_stride + i]) * b.dim;
      for (int64_t k = 0; k < b.dim; ++k) out[k] += entry[k];
    }
  }
}

}  // namespace encodec_fast::EF_ISA
