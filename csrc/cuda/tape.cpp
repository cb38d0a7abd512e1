#include "cuda/tape.h"

namespace encodec_fast::cuda {
namespace {

// Making a graph of more kernels takes longer than starting them.
constexpr int64_t kMostInGraph = 1024;

}  // namespace

void Tape::clear() {
  drop_graph();
  tables_.clear();
  steps_.clear();
  kernels_ = 0;
  plays_ = 0;
}

void Tape::drop_graph() noexcept {
  if (graph_ != nullptr && cudaGraphExecDestroy(graph_) != cudaSuccess) cudaGetLastError();
  graph_ = nullptr;
}

void Tape::add(std::function<void(cudaStream_t)> step, int64_t kernels) {
  steps_.push_back(std::move(step));
  kernels_ += kernels;
}

void Tape::play(Queue& queue) {
  if (plays_ == 0) {
    memory_.reserve(tables_.size() + 1);
    queue.upload(memory_.bytes(), tables_.data(), tables_.size());
  }
  if (plays_ == 1 && kernels_ <= kMostInGraph) capture(queue);
  ++plays_;
  if (graph_ != nullptr) return check(cudaGraphLaunch(graph_, queue.stream()), "starting a graph");
  for (const auto& step : steps_) step(queue.stream());
}

void Tape::capture(Queue& queue) {
  check(cudaStreamBeginCapture(queue.stream(), cudaStreamCaptureModeThreadLocal),
        "beginning a graph");
  cudaGraph_t graph = nullptr;
  try {
    for (const auto& step : steps_) step(queue.stream());
  } catch (...) {
    if (cudaStreamEndCapture(queue.stream(), &graph) != cudaSuccess) cudaGetLastError();
    if (graph != nullptr) cudaGraphDestroy(graph);
    throw;
  }
  check(cudaStreamEndCapture(queue.stream(), &graph), "recording a graph");
  cudaGraphExec_t made = nullptr;
  const cudaError_t error = cudaGraphInstantiate(&made, graph, 0);
  cudaGraphDestroy(graph);
  check(error, "making a graph");
  graph_ = made;  // what a call that failed left in it is nothing to start or to free
}

}  // namespace encodec_fast::cuda
