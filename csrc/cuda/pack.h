// Weights on their way to a device, in one copy.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "cuda/kernels.h"
#include "cuda/runtime.h"
#include "engine/matrix.h"

namespace encodec_fast::cuda {

// Arrays of floats behind each other, each aligned.
class Pack {
 public:
  // Returns where `count` zeros begin.
  size_t room(size_t count) {
    constexpr size_t kAligned = 64;  // floats
    const size_t at = values_.size();
    values_.resize(at + (count + kAligned - 1) / kAligned * kAligned);
    return at;
  }
  size_t add(const float* from, size_t count) {
    const size_t at = room(count);
    std::copy_n(from, count, values_.begin() + static_cast<std::ptrdiff_t>(at));
    return at;
  }
  size_t add(const std::vector<float>& from) { return add(from.data(), from.size()); }
  float& operator[](size_t at) { return values_[at]; }

  void upload(int device, DeviceMemory& memory) const {
    Queue queue(device);
    require_code();  // now, rather than when the first kernel is started
    memory.reserve(values_.size() * sizeof(float));
    queue.upload(memory.bytes(), values_.data(), values_.size() * sizeof(float));
    queue.finish();
  }

 private:
  std::vector<float> values_;
};

// The value of a bfloat16.
float widen(uint16_t upper);

// The weight in row i and column j of a settled matrix.
float element(const Matrix& m, int64_t i, int64_t j);

// Floats of a matrix in panels of float32, whole_panels(m.n) columns of it.
size_t panel_floats(const Matrix& m);
// Writes them, bfloat16 widened; columns that there are not stay as they are.
void widen_panels(const Matrix& m, float* to);

size_t pack_matrix(Pack& pack, const Matrix& m);

}  // namespace encodec_fast::cuda
