// The work of one run, recorded: kernels to start and the tables that they read. A run whose blocks
// are those of the run before plays the same tape, from the second time on as a CUDA graph: a live
// step then costs one start instead of one per kernel.
#pragma once

#include <cstring>
#include <functional>
#include <vector>

#include "cuda/runtime.h"

namespace encodec_fast::cuda {

class Tape {
 public:
  Tape() = default;
  ~Tape() { drop_graph(); }
  Tape(const Tape&) = delete;
  Tape& operator=(const Tape&) = delete;

  void clear();
  bool empty() const { return steps_.empty(); }

  // A table on the device; at(place) is where it lies while a step runs.
  template <typename T>
  size_t table(const std::vector<T>& rows) {
    constexpr size_t kAligned = 16;
    const size_t place = (tables_.size() + kAligned - 1) / kAligned * kAligned;
    tables_.resize(place + rows.size() * sizeof(T));
    if (!rows.empty()) std::memcpy(&tables_[place], rows.data(), rows.size() * sizeof(T));
    return place;
  }
  template <typename T>
  const T* at(size_t place) const {
    return reinterpret_cast<const T*>(memory_.bytes() + place);
  }

  // `kernels`: how many the step starts.
  void add(std::function<void(cudaStream_t)> step, int64_t kernels = 1);

  void play(Queue& queue);

 private:
  void drop_graph() noexcept;
  void capture(Queue& queue);

  std::vector<uint8_t> tables_;
  std::vector<std::function<void(cudaStream_t)>> steps_;
  int64_t kernels_ = 0, plays_ = 0;
  DeviceMemory memory_;
  cudaGraphExec_t graph_ = nullptr;
};

}  // namespace encodec_fast::cuda
