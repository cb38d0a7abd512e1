#include "engine/matrix.h"

#include <algorithm>

#include "kernels/gemm.h"

namespace encodec_fast {

void pack_panels(const float* weight, int64_t k, int64_t n, int64_t k_stride, int64_t n_stride,
                 float* panels) {
  for (int64_t j = 0; j < n; ++j) {
    float* column = panels + (j / kPanel) * kPanel * k + j % kPanel;
    for (int64_t i = 0; i < k; ++i) column[i * kPanel] = weight[i * k_stride + j * n_stride];
  }
}

static void pack_panels(const uint16_t* weight, int64_t k, int64_t n, int64_t k_stride,
                        int64_t n_stride, uint16_t* panels) {
  const int64_t depth = k + k % 2;
  for (int64_t j = 0; j < n; ++j) {
    uint16_t* column = panels + (j / kPanel) * kPanel * depth + j % kPanel * 2;
    for (int64_t i = 0; i < k; ++i)
      column[i / 2 * 2 * kPanel + i % 2] = weight[i * k_stride + j * n_stride];
  }
}

namespace {

template <typename T>
Matrix pack(const T* weight, int64_t k, int64_t n, const float* bias) {
  Matrix m;
  m.k = k;
  m.n = n;
  m.bfloat16 = sizeof(T) == sizeof(uint16_t);
  m.packed.assign(m.bytes(), 0);
  pack_panels(weight, k, n, n, 1, reinterpret_cast<T*>(m.packed.data()));
  if (bias != nullptr) m.bias.assign(bias, bias + n);
  return m;
}

}  // namespace

int64_t whole_panels(int64_t n) { return (n + kPanel - 1) / kPanel * kPanel; }

size_t Matrix::bytes() const {
  return static_cast<size_t>(whole_panels(n)) *
         (bfloat16 ? static_cast<size_t>(k + k % 2) * sizeof(uint16_t)
                   : static_cast<size_t>(k) * sizeof(float));
}

Matrix pack_matrix(const float* weight, int64_t k, int64_t n, const float* bias) {
  return pack(weight, k, n, bias);
}

Matrix pack_matrix(const uint16_t* weight, int64_t k, int64_t n, const float* bias) {
  return pack(weight, k, n, bias);
}

Memory settle(const std::vector<Matrix*>& matrices) {
  size_t bytes = 0;
  for (const Matrix* m : matrices) bytes += whole_lines(m->bytes());
  Memory place = allocate(bytes);
  uint8_t* to = place.get();
  for (Matrix* m : matrices) {
    std::copy(m->packed.begin(), m->packed.end(), to);
    std::vector<uint8_t>().swap(m->packed);
    if (m->bfloat16) {
      m->panels16 = reinterpret_cast<const uint16_t*>(to);
    } else {
      m->panels = reinterpret_cast<const float*>(to);
    }
    to += whole_lines(m->bytes());
  }
  return place;
}

}  // namespace encodec_fast
