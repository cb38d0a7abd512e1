// Which streams of a language model's coder a call may use, and the codes they ended with: on
// whatever device the model runs.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace encodec_fast {

class LanguageModel;

// Consecutive steps of one stream.
struct LmCodes {
  int64_t lane = 0;
  int64_t steps = 0;
  std::vector<uint16_t> codes;  // [steps][n_q]
};

// What decode() is to do, and what came of it: `codes` is empty where the data is damaged.
struct LmPayload {
  int64_t lane = 0;
  int64_t steps = 0;
  std::vector<uint8_t> data;
  std::vector<uint16_t> codes;  // [steps][n_q]
  bool damaged = false;
};

template <typename T>
std::vector<int64_t> lanes_of(const std::vector<T>& streams) {
  std::vector<int64_t> lanes;
  lanes.reserve(streams.size());
  for (const T& s : streams) lanes.push_back(s.lane);
  return lanes;
}

class LmLanes {
 public:
  // Throws std::invalid_argument for n_q outside 1..the model's codebooks and for lanes outside
  // 1..65536.
  LmLanes(const LanguageModel& model, int64_t n_q, int64_t lanes);

  int64_t n_q() const { return n_q_; }
  int64_t count() const { return static_cast<int64_t>(failed_.size()); }

  // Throws std::invalid_argument for a lane that does not exist.
  void check(const std::vector<int64_t>& lanes) const;
  // Throws std::invalid_argument for a lane that does not exist, is named twice or failed and was
  // not reset since; else marks them all as failed until close().
  void open(const std::vector<int64_t>& lanes);
  void close(int64_t lane) { failed_[static_cast<size_t>(lane)] = false; }
  void reset(int64_t lane);

  // [n_q], of the last step: 0 in the beginning, else code + 1.
  uint32_t* previous(int64_t lane) { return previous_.data() + lane * n_q_; }

 private:
  int64_t n_q_;
  std::vector<uint32_t> previous_;
  std::vector<bool> failed_;
};

}  // namespace encodec_fast
