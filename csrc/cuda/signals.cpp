#include "cuda/signals.h"

#include <string>

#include "engine/require.h"

namespace encodec_fast::cuda {
namespace {

constexpr int64_t kMostRows = int64_t{1} << 36;  // of a call: sizes in bytes do not overflow

void check_ends(const std::vector<int64_t>& ends, int64_t rows) {
  int64_t before = 0;
  for (const int64_t end : ends) {
    require(end > before, "ends: expected rising ends of blocks");
    before = end;
  }
  require(before == rows, "ends: expected the last one to be " + std::to_string(rows) + ", found " +
                              std::to_string(before));
}

// Its recording would hold what this call alone computes, and nothing of later ones.
void require_no_capture(cudaStream_t stream) {
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  check(cudaStreamIsCapturing(stream, &status), "asking for a stream");
  require(status == cudaStreamCaptureStatusNone, "stream: is being captured into a CUDA graph");
}

}  // namespace

SignalNetwork::SignalNetwork(const std::shared_ptr<const DeviceGraph>& graph, int64_t lanes)
    : queue_(graph->device()), executor_(graph, lanes, Start::kExact, queue_) {}

int64_t SignalNetwork::out_rows(const SignalArrays& a) const {
  const Graph& graph = executor_.graph();
  return (a.rows * graph.up() + graph.down() - 1) / graph.down();
}

void SignalNetwork::check_arrays(const SignalArrays& a) const {
  constexpr int64_t kFloat = sizeof(float);
  const Graph& graph = executor_.graph();
  require_in("batch", a.batch, 1, executor_.lanes());
  require_in("rows", a.rows, 1, kMostRows / a.batch);
  require_memory("in", a.in, a.batch * graph.in_channels() * a.rows * kFloat, kFloat,
                 queue_.device());
  require_memory("out", a.out, a.batch * graph.out_channels() * out_rows(a) * kFloat, kFloat,
                 queue_.device());
}

// Not on the caller's stream itself: the tape is captured, which the default stream refuses, and
// calls from several streams take their turns with what lies between the operations.
void SignalNetwork::run(const SignalArrays& arrays, const std::vector<int64_t>& ends) {
  const auto stream = reinterpret_cast<cudaStream_t>(arrays.stream);
  use_device(queue_.device());
  check_arrays(arrays);
  check_ends(ends, arrays.rows);
  require_no_capture(stream);
  queue_.follow(stream);
  try {
    queue_blocks(arrays, ends);
    queue_.lead(stream);
  } catch (...) {
    queue_.drain();  // the arrays may go, now
    throw;
  }
}

void SignalNetwork::queue_blocks(const SignalArrays& a, const std::vector<int64_t>& ends) {
  const Graph& graph = executor_.graph();
  float* in = reinterpret_cast<float*>(a.in);
  float* out = reinterpret_cast<float*>(a.out);
  executor_.reset();
  int64_t begin = 0;
  for (const int64_t end : ends) {
    const int64_t count = end - begin;
    std::vector<Block> blocks(static_cast<size_t>(executor_.lanes()), Block{0, true});
    for (int64_t lane = 0; lane < a.batch; ++lane)
      blocks[static_cast<size_t>(lane)] = {count, end == a.rows};
    float* rows = executor_.input(blocks);
    take_signals({in, a.rows, a.batch, graph.in_channels(), count}, rows, queue_.stream());
    executor_.run();
    const int64_t done = executor_.output_rows().front();
    give_signals({out, out_rows(a), a.batch, graph.out_channels(), done}, executor_.result(),
                 queue_.stream());
    executor_.finished();  // queued; what fails on the device is found by whoever waits for it
    in += count;
    out += done;
    begin = end;
  }
}

}  // namespace encodec_fast::cuda
