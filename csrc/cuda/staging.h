// Arrays between the host and a device, one copy a call.
#pragma once

#include <cstring>
#include <numeric>
#include <vector>

#include "cuda/kernels.h"
#include "cuda/runtime.h"

namespace encodec_fast::cuda {

// What one call uploads: arrays behind each other.
class Staging {
 public:
  // Room for `bytes`, of which add() takes room() of each array. The copy of the call before must
  // have ended.
  void begin(size_t bytes) {
    host_.reserve(bytes);
    device_.reserve(bytes);
    used_ = 0;
  }
  static constexpr size_t room(size_t bytes) { return (bytes + 15) / 16 * 16; }

  // Returns where the array will be on the device.
  template <typename T>
  T* add(const T* from, size_t count) {
    T* to = reinterpret_cast<T*>(device_.bytes() + used_);
    if (count > 0) std::memcpy(host_.bytes() + used_, from, count * sizeof(T));
    used_ += room(count * sizeof(T));
    return to;
  }
  void upload(Queue& queue) const { queue.upload(device_.bytes(), host_.bytes(), used_); }

 private:
  PinnedMemory host_;
  DeviceMemory device_;
  size_t used_ = 0;
};

// Planar arrays of the host to rows on the device.
class PlanarInput {
 public:
  // planar[l]: [channels][counts[l]], each value divided by scales[l]; rows: lanes one after the
  // other.
  void take(const std::vector<const float*>& planar, const std::vector<float>& scales,
            const std::vector<int64_t>& counts, int64_t channels, float* rows, Queue& queue);

 private:
  Staging staging_;
};

// Rows on the device to planar arrays of the host.
class PlanarOutput {
 public:
  // The inverse of take(); values are multiplied. Waits for the queue.
  void give(float* rows, const std::vector<float>& scales, const std::vector<int64_t>& counts,
            int64_t channels, Queue& queue);

  // [channels][counts[l]] of each lane, lanes one after the other.
  const float* planar() const { return result_.floats(); }

 private:
  Staging staging_;
  DeviceMemory planar_;
  PinnedMemory result_;
};

inline int64_t total(const std::vector<int64_t>& counts) {
  return std::accumulate(counts.begin(), counts.end(), int64_t{0});
}

int64_t longest(const std::vector<int64_t>& counts);

}  // namespace encodec_fast::cuda
