// What a batch of streams through a language model remembers on a device, and the evaluation of
// their next steps: engine/lm_state.h for CUDA.
#pragma once

#include <memory>
#include <vector>

#include "cuda/kernels.h"
#include "cuda/lm_kernels.h"
#include "cuda/lm_weights.h"
#include "cuda/runtime.h"

namespace encodec_fast::cuda {

class LmState {
 public:
  LmState(std::shared_ptr<const DeviceLanguageModel> model, int64_t n_q, int64_t lanes);

  const DeviceLanguageModel& model() const { return *model_; }
  const LanguageModel& sizes() const { return model_->model(); }
  int64_t n_q() const { return n_q_; }
  // Steps of all streams that are evaluated together, at most; of one run.
  int64_t most_rows() const { return most_rows_; }
  int64_t run_rows() const { return run_rows_; }

  int64_t steps(int64_t lane) const { return lanes_[static_cast<size_t>(lane)].steps; }
  void advance(int64_t lane, int64_t steps) { lanes_[static_cast<size_t>(lane)].steps += steps; }
  void reset(int64_t lane) { lanes_[static_cast<size_t>(lane)].steps = 0; }
  float* cache(int64_t lane) const { return lanes_[static_cast<size_t>(lane)].cache; }

  // Room for the keys and values of these streams: it is kept, and never moves. Throws DeviceError.
  void open(const std::vector<int64_t>& lanes);
  // Room for `rows` steps at once. What a tape has recorded before it changed points nowhere.
  // Throws DeviceError.
  void reserve(int64_t rows, Queue& queue);
  int64_t version() const { return version_; }

  // Queues the evaluation of a block: the probabilities of its steps, and what its streams
  // remember. Runs have `run_rows` rows at most.
  void run(const LmRuns& block, int64_t run_rows, cudaStream_t stream) const;
  // [rows][n_q][padded], until the next run().
  LmDistributions distributions(int64_t rows) const {
    return {logits_.floats(), rows, n_q_, sizes().entries(), model_->padded()};
  }
  // Kernels that run() starts.
  int64_t kernels() const;

 private:
  struct Lane {
    int64_t steps = 0;
    float* cache = nullptr;
  };
  // The products, by what they read and write.
  enum Step { kQkv, kOut, kUp, kDown, kHeads, kSteps };

  void multiply(const DeviceMatrix& m, Step step, int64_t rows, cudaStream_t stream) const;

  std::shared_ptr<const DeviceLanguageModel> model_;
  int64_t n_q_, most_rows_, run_rows_;
  std::vector<Lane> lanes_;
  std::vector<DeviceMemory> caches_;
  int64_t rows_ = 0, version_ = 0;
  DeviceMemory x_, y_, qkv_, mixed_, hidden_, logits_;
  DeviceMemory parts_;  // [kSteps]
};

}  // namespace encodec_fast::cuda
