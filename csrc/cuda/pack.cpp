#include "cuda/pack.h"

#include <cstring>

#include "kernels/gemm.h"

namespace encodec_fast::cuda {

float widen(uint16_t upper) {
  const uint32_t bits = static_cast<uint32_t>(upper) << 16;
  float x;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}

float element(const Matrix& m, int64_t i, int64_t j) {
  const int64_t column = j % kPanel;
  if (!m.bfloat16) return m.panels[(j - column) * m.k + i * kPanel + column];
  const int64_t depth = m.k + m.k % 2;
  return widen(m.panels16[(j - column) * depth + i / 2 * 2 * kPanel + 2 * column + i % 2]);
}

size_t panel_floats(const Matrix& m) { return static_cast<size_t>(m.k * whole_panels(m.n)); }

void widen_panels(const Matrix& m, float* to) {
  if (!m.bfloat16) {
    std::copy_n(m.panels, panel_floats(m), to);
    return;
  }
  for (int64_t j = 0; j < m.n; ++j) {
    const int64_t column = j % kPanel;
    for (int64_t i = 0; i < m.k; ++i)
      to[(j - column) * m.k + i * kPanel + column] = element(m, i, j);
  }
}

size_t pack_matrix(Pack& pack, const Matrix& m) {
  const size_t at = pack.room(panel_floats(m));
  widen_panels(m, &pack[at]);
  return at;
}

}  // namespace encodec_fast::cuda
