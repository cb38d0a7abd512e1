#include "kernels/gemm.h"

#include "kernels/vec.h"

namespace encodec_fast::EF_ISA {
namespace {

constexpr int kHalves = kPanel / kLanes;
// 6 rows x 16 columns = 12 accumulators: what 16 vector registers hold beside two weights and a
// broadcast.
constexpr int kRows = 6;
// One-row products: four panels at once give eight independent chains, enough to hide the latency
// of an fma.
constexpr int kNarrowPanels = 4;

inline void load_row(const float* p, int64_t width, Vec (&r)[kHalves]) noexcept {
  if (width >= kPanel) {
    for (int h = 0; h < kHalves; ++h) r[h] = load(p + h * kLanes);
    return;
  }
  float row[kPanel] = {};
  for (int64_t j = 0; j < width; ++j) row[j] = p[j];
  for (int h = 0; h < kHalves; ++h) r[h] = load(row + h * kLanes);
}

inline void finish_row(const GemmArgs& g, int64_t i, int64_t j, Vec (&acc)[kHalves]) noexcept {
  const int64_t width = g.n - j;
  if (g.add != nullptr) {
    Vec extra[kHalves];
    load_row(g.add + i * g.add_stride + j, width, extra);
    for (int h = 0; h < kHalves; ++h) acc[h] = add(acc[h], extra[h]);
  }
  float* out = g.out + i * g.out_stride + j;
  if (width >= kPanel) {
    for (int h = 0; h < kHalves; ++h) store(out + h * kLanes, acc[h]);
    return;
  }
  float row[kPanel];
  for (int h = 0; h < kHalves; ++h) store(row + h * kLanes, acc[h]);
  for (int64_t c = 0; c < width; ++c) out[c] = row[c];
}

template <int R>
void tile(const GemmArgs& g, int64_t i, int64_t j) noexcept {
  const float* w = g.panels + j * g.k;
  const float* a = g.a + i * g.a_stride;
  Vec acc[R][kHalves];
  for (int r = 0; r < R; ++r) load_row(g.init + (i + r) * g.init_stride + j, g.n - j, acc[r]);
  for (int64_t k = 0; k < g.k; ++k, w += kPanel) {
    const Vec w0 = load(w);
    const Vec w1 = load(w + kLanes);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const Vec x = broadcast(a[r * g.a_stride + k]);
      acc[r][0] = fma(x, w0, acc[r][0]);
      acc[r][1] = fma(x, w1, acc[r][1]);
    }
  }
  for (int r = 0; r < R; ++r) finish_row(g, i + r, j, acc[r]);
}

void narrow(const GemmArgs& g, int64_t i, int64_t j) noexcept {
  const float* a = g.a + i * g.a_stride;
  const float* w[kNarrowPanels];
  Vec acc[kNarrowPanels][kHalves];
  for (int p = 0; p < kNarrowPanels; ++p) {
    w[p] = g.panels + (j + p * kPanel) * g.k;
    load_row(g.init + i * g.init_stride + j + p * kPanel, g.n - j - p * kPanel, acc[p]);
  }
  for (int64_t k = 0; k < g.k; ++k) {
    const Vec x = broadcast(a[k]);
#pragma GCC unroll 4
    for (int p = 0; p < kNarrowPanels; ++p) {
      acc[p][0] = fma(x, load(w[p] + k * kPanel), acc[p][0]);
      acc[p][1] = fma(x, load(w[p] + k * kPanel + kLanes), acc[p][1]);
    }
  }
  for (int p = 0; p < kNarrowPanels; ++p) finish_row(g, i, j + p * kPanel, acc[p]);
}

void rows(const GemmArgs& g, int64_t i, int64_t count, int64_t j) noexcept {
  switch (count) {
    case 1:
      return tile<1>(g, i, j);
    case 2:
      return tile<2>(g, i, j);
    case 3:
      return tile<3>(g, i, j);
    case 4:
      return tile<4>(g, i, j);
    case 5:
      return tile<5>(g, i, j);
    default:
      return tile<kRows>(g, i, j);
  }
}

}  // namespace

static_assert(kHalves == 2);

void gemm(const GemmArgs& g) noexcept {
  int64_t j = 0;
  if (g.m == 1) {
    for (; j + kNarrowPanels * kPanel <= g.n; j += kNarrowPanels * kPanel) narrow(g, 0, j);
  }
  // A panel stays in the first cache level while all rows pass over it.
  for (; j < g.n; j += kPanel) {
    for (int64_t i = 0; i < g.m; i += kRows) rows(g, i, g.m - i < kRows ? g.m - i : kRows, j);
  }
}

}  // namespace encodec_fast::EF_ISA
