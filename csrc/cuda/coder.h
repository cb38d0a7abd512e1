// Audio to codes and back on a device: engine/coder.h for CUDA. What runs is a call of the host
// that returns when the result is there.
#pragma once

#include <memory>
#include <vector>

#include "cuda/executor.h"
#include "cuda/staging.h"

namespace encodec_fast::cuda {

class Encoder {
 public:
  // Both on the same device. Throws std::invalid_argument if the graph's output is not as wide as a
  // codebook entry.
  Encoder(const std::shared_ptr<const DeviceGraph>& graph, std::shared_ptr<const DeviceBooks> books,
          int64_t lanes, Start start);

  // As Encoder in engine/coder.h. Throws std::invalid_argument and DeviceError; after the latter
  // the streams that had a block must be reset.
  void run(const std::vector<const float*>& audio, const std::vector<float>& scales,
           const std::vector<Block>& blocks, int64_t n_q);

  // [n_q][sum of frames], lanes side by side.
  const uint16_t* codes() const { return reinterpret_cast<const uint16_t*>(result_.bytes()); }
  const std::vector<int64_t>& frames() const { return executor_.output_rows(); }
  int64_t channels() const { return executor_.graph().in_channels(); }
  Executor& stream() { return executor_; }

 private:
  std::shared_ptr<const DeviceBooks> books_;
  Queue queue_;
  Executor executor_;
  PlanarInput input_;
  DeviceMemory codes_, scratch_;
  PinnedMemory result_;
};

class Decoder {
 public:
  Decoder(const std::shared_ptr<const DeviceGraph>& graph, std::shared_ptr<const DeviceBooks> books,
          int64_t lanes, Start start);

  // As Decoder in engine/coder.h; errors as Encoder.
  void run(const std::vector<const uint16_t*>& codes, const std::vector<float>& scales,
           const std::vector<Block>& blocks, int64_t n_q);

  // Planar [channels][samples] per lane, lanes one after the other.
  const float* audio() const { return output_.planar(); }
  const std::vector<int64_t>& samples() const { return executor_.output_rows(); }
  int64_t channels() const { return executor_.graph().out_channels(); }
  Executor& stream() { return executor_; }

 private:
  std::shared_ptr<const DeviceBooks> books_;
  Queue queue_;
  Executor executor_;
  Staging staging_;
  PlanarOutput output_;
};

// A graph alone.
class Network {
 public:
  Network(const std::shared_ptr<const DeviceGraph>& graph, int64_t lanes);

  // As Network in engine/coder.h; errors as Encoder.
  void run(const std::vector<const float*>& in, const std::vector<Block>& blocks);

  const float* out() const { return output_.planar(); }
  const std::vector<int64_t>& rows() const { return executor_.output_rows(); }
  const Graph& graph() const { return executor_.graph(); }
  Executor& stream() { return executor_; }

 private:
  Queue queue_;
  Executor executor_;
  PlanarInput input_;
  PlanarOutput output_;
};

}  // namespace encodec_fast::cuda
