// Codes to bytes and back with the probabilities of a language model, on a device:
// engine/lm_coder.h for CUDA. What runs is a call of the host that returns when the result is
// there.
#pragma once

#include <memory>
#include <vector>

#include "cuda/lm_plan.h"
#include "cuda/lm_state.h"
#include "cuda/staging.h"
#include "cuda/tape.h"
#include "engine/lm_lanes.h"

namespace encodec_fast::cuda {

// As LmCoder of the CPU, with the same results. Every method may throw DeviceError; the streams
// that were in the call must then be reset.
class LmCoder {
 public:
  LmCoder(std::shared_ptr<const DeviceLanguageModel> model, int64_t n_q, int64_t lanes);

  int64_t n_q() const { return lanes_.n_q(); }
  const LanguageModel& model() const { return model_->model(); }
  void reset(const std::vector<int64_t>& lanes);

  std::vector<std::vector<uint8_t>> encode(const std::vector<LmCodes>& streams);
  void decode(std::vector<LmPayload>& streams);
  void probabilities(const std::vector<LmCodes>& streams, const std::vector<float*>& out);

 private:
  // Of a call whose codes are known: lm_coder.cpp.
  struct Job {
    LmPlan plan;
    const LmRun* runs;
    const LmSpan* spans;
    RangeWriter* writers;
    int* bad;
    LmRuns block(const LmBlock& b) const {
      return {runs + b.run, static_cast<int64_t>(b.runs), b.rows};
    }
  };
  Job upload(const std::vector<LmCodes>& streams, const std::vector<RangeWriter>& writers);
  std::vector<RangeWriter> make_writers(const std::vector<LmCodes>& streams);
  std::vector<std::vector<uint8_t>> gather(const std::vector<RangeWriter>& writers);
  void finish(const std::vector<LmCodes>& streams);
  uint16_t* add_codes(const LmCodes& stream);

  // Of decode(): lm_decode.cpp.
  struct Reading {
    LmPayload* payload;
    RangeDecoder decoder;
    int64_t done;
  };
  std::vector<Reading> open(std::vector<LmPayload>& streams);
  void record(int64_t rows);
  void fill(const std::vector<Reading>& readings, int64_t rows);
  void take(std::vector<Reading>& readings, int64_t rows);
  int64_t longest(const std::vector<Reading>& readings, int64_t rows) const;

  std::shared_ptr<const DeviceLanguageModel> model_;
  LmLanes lanes_;
  Queue queue_;
  LmState state_;
  Staging staging_, tables_;
  DeviceMemory bytes_, intervals_, packed_;
  PinnedMemory result_;

  // One step of `tape_rows_` streams, recorded; it reads and writes `stretch_`.
  Tape tape_;
  int64_t tape_rows_ = 0, tape_version_ = 0;
  DeviceMemory stretch_;
  PinnedMemory stretch_of_host_;
};

}  // namespace encodec_fast::cuda
