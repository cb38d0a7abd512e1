// Codes to bytes and back with the probabilities of a language model, for a batch of streams.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "engine/lm_lanes.h"
#include "engine/lm_state.h"
#include "entropy/range_coder.h"

namespace encodec_fast {

// Every method throws std::invalid_argument for a lane that does not exist, is named twice, or
// whose last call failed or met damaged data and which was not reset since; nothing has changed
// then.
class LmCoder {
 public:
  // The model must be sealed. Throws std::invalid_argument for n_q outside 1..its codebooks and for
  // lanes outside 1..65536.
  LmCoder(std::shared_ptr<const LanguageModel> model, int64_t n_q, int64_t lanes);

  int64_t n_q() const { return state_.n_q(); }
  const LanguageModel& model() const { return *model_; }
  void reset(const std::vector<int64_t>& lanes);

  // The bytes of each stream's codes, which must be below the model's entries. Throws
  // std::invalid_argument if the model's probabilities are not valid.
  std::vector<std::vector<uint8_t>> encode(const std::vector<LmCodes>& streams);

  // Fills `codes` or sets `damaged`.
  void decode(std::vector<LmPayload>& streams);

  // Writes the probabilities [steps][n_q][entries] of each stream's codes.
  void probabilities(const std::vector<LmCodes>& streams, const std::vector<float*>& out);

 private:
  // Steps first .. first + steps - 1 of streams[index].
  struct Part {
    size_t index;
    int64_t first, steps;
  };
  struct Reading {
    LmPayload* payload;
    RangeDecoder decoder;
  };
  using Block = std::function<void(const std::vector<Part>&)>;

  // Evaluates all steps in blocks; `block` finds their probabilities in the state, part after part.
  void follow(const std::vector<LmCodes>& streams, const Block& block);
  void decode_step(std::vector<Reading>& active);

  std::shared_ptr<const LanguageModel> model_;
  LmLanes lanes_;
  LmState state_;
  std::vector<LmRun> runs_;
};

}  // namespace encodec_fast
