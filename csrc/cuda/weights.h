// A model's weights on a device: uploaded once, shared by all streams that run there.
#pragma once

#include <memory>
#include <vector>

#include "cuda/kernels.h"
#include "cuda/runtime.h"
#include "engine/program.h"

namespace encodec_fast::cuda {

// Of one operation; null where it has none.
struct OpWeights {
  const float* panels = nullptr;       // [ceil(n / 16)][k][16], bfloat16 widened
  const float* bias = nullptr;         // [n rounded up to panels]
  const float4* recurrent = nullptr;   // lstm: [hidden][hidden] of the gates i, f, g, o
  const float* norm_scale = nullptr;   // [out_channels]
  const float* norm_offset = nullptr;  // [out_channels]
};

class DeviceGraph {
 public:
  // Throws DeviceError.
  DeviceGraph(std::shared_ptr<const Graph> graph, int device);

  const Graph& graph() const { return *graph_; }
  const OpWeights& weights(int op) const { return ops_[static_cast<size_t>(op)]; }
  int device() const { return device_; }
  int multiprocessors() const { return multiprocessors_; }

 private:
  std::shared_ptr<const Graph> graph_;
  int device_, multiprocessors_;
  DeviceMemory memory_;
  std::vector<OpWeights> ops_;
};

class DeviceBooks {
 public:
  DeviceBooks(const Codebooks& books, int device);

  const Books& view() const { return view_; }
  int64_t n_q() const { return n_q_; }
  int device() const { return device_; }
  int multiprocessors() const { return multiprocessors_; }

 private:
  int64_t n_q_;
  int device_, multiprocessors_;
  DeviceMemory memory_;
  Books view_ = {};
};

}  // namespace encodec_fast::cuda
