// A graph on whole signals that are on the device already, PyTorch's say.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "cuda/executor.h"

namespace encodec_fast::cuda {

// Addresses of contiguous arrays on the graph's device, and a cudaStream_t (0: the default one).
struct SignalArrays {
  uintptr_t in;   // float32 [batch][in_channels][rows]
  uintptr_t out;  // float32 [batch][out_channels][rows * up / down, rounded up]
  int64_t batch, rows;
  uintptr_t stream;  // what produces the input, and will take the result, runs there
};

class SignalNetwork {
 public:
  // lanes: the most signals of a call. Throws std::invalid_argument and DeviceError.
  SignalNetwork(const std::shared_ptr<const DeviceGraph>& graph, int64_t lanes);
  ~SignalNetwork() { queue_.drain(); }
  SignalNetwork(const SignalNetwork&) = delete;
  SignalNetwork& operator=(const SignalNetwork&) = delete;

  // Passes signals through the graph, in blocks that end at `ends`, the last of which is `rows`:
  // what is in memory between the operations is that of a block. Queues the work and returns; what
  // the stream is given after it finds the result. Throws std::invalid_argument for sizes, ends and
  // addresses that cannot be, and for a stream that is being captured; DeviceError, also one of
  // earlier work. After either, nothing reads or writes the arrays any more.
  void run(const SignalArrays& arrays, const std::vector<int64_t>& ends);

 private:
  void queue_blocks(const SignalArrays& arrays, const std::vector<int64_t>& ends);
  int64_t out_rows(const SignalArrays& arrays) const;
  void check_arrays(const SignalArrays& arrays) const;

  Queue queue_;
  Executor executor_;
};

}  // namespace encodec_fast::cuda
