// Matrices in the form that the products read.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "engine/memory.h"

namespace encodec_fast {

// A [k][n] matrix in panels (kernels/gemm.h), float32 or bfloat16, and its bias row.
struct Matrix {
  int64_t k = 0, n = 0;
  std::vector<float> bias;
  const float* panels = nullptr;  // one of these two, once the matrix is settled
  const uint16_t* panels16 = nullptr;
  bool bfloat16 = false;
  std::vector<uint8_t> packed;  // the panels until then

  size_t bytes() const;
};

Matrix pack_matrix(const float* weight, int64_t k, int64_t n, const float* bias);
Matrix pack_matrix(const uint16_t* weight, int64_t k, int64_t n, const float* bias);  // bfloat16

// n rounded up to whole panels.
int64_t whole_panels(int64_t n);

// Element [i][j] of the matrix is weight[i * k_stride + j * n_stride]; panels of zeros before.
void pack_panels(const float* weight, int64_t k, int64_t n, int64_t k_stride, int64_t n_stride,
                 float* panels);

// Moves the panels of all matrices into one place, in this order, which should be that in which
// they are read. Returns the place, which must outlive their use.
Memory settle(const std::vector<Matrix*>& matrices);

}  // namespace encodec_fast
