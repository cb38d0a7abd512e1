// What a batch of streams through a language model remembers, and the evaluation of their next
// steps.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "engine/language_model.h"
#include "engine/memory.h"

namespace encodec_fast {

// Consecutive steps of one stream: 1..kLmBlockRows.
struct LmRun {
  int64_t lane;
  int64_t rows;
};

class LmState {
 public:
  // model must be sealed and outlive the state; n_q in 1..its codebooks.
  LmState(const LanguageModel& model, int64_t n_q, int64_t lanes);

  int64_t lanes() const { return static_cast<int64_t>(lanes_.size()); }
  int64_t n_q() const { return n_q_; }
  const LanguageModel& model() const { return model_; }
  void reset(int64_t lane);

  // Where the input of the next run() goes: [rows][n_q], of each code of the step before the code
  // + 1, or 0 in the first step of a stream.
  uint32_t* indices(int64_t rows);

  // Evaluates the steps given to indices(), runs one after the other, each lane at most once.
  void run(const std::vector<LmRun>& runs);

  // Of the steps of the last run(): [rows][entries], valid until the next call.
  const float* probabilities(int64_t codebook);

 private:
  struct Lane {
    int64_t steps = 0;
    Memory cache;  // keys and values of each layer; none before the first step
  };

  void start(Lane& lane);
  void attend(size_t layer, const std::vector<LmRun>& runs);
  void multiply(const Matrix& weight, const float* in, const float* add, float* out) const;

  const LanguageModel& model_;
  int64_t n_q_;
  std::vector<Lane> lanes_;
  int64_t rows_ = 0;
  std::vector<uint32_t> indices_;
  Buffer x_, y_, qkv_, mixed_, hidden_, scores_, logits_;
};

}  // namespace encodec_fast
