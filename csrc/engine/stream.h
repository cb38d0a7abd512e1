// The state of a batch of independent streams through one graph, and its execution block by block.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "engine/program.h"

namespace encodec_fast {

enum class Start {
  kExact,       // padding at the start as the model defines it (mirrored or zero)
  kLowLatency,  // zeros in front of the first row: the first block may be as short as any other
};

// One block of one stream.
struct Block {
  int64_t rows = 0;   // new input rows; 0: this stream rests
  bool last = false;  // the stream ends with this block and starts anew with the next
};

class Stream {
 public:
  // graph must outlive the stream. Throws std::invalid_argument on a bad lane count.
  Stream(const Graph& graph, int64_t lanes, Start start);

  int64_t lanes() const { return static_cast<int64_t>(lane_.size()); }

  // Where the rows of the next block go: [sum of rows][in_channels], lanes one after the other.
  // Checks the blocks; throws std::invalid_argument and changes nothing if one cannot be run.
  float* input(const std::vector<Block>& blocks);

  // Runs the blocks given to input(). Returns the output rows [sum of output_rows()][out_channels],
  // valid until the next call.
  const float* run();

  // Output rows per lane of the last run().
  const std::vector<int64_t>& output_rows() const { return rows_.back(); }

  void reset();
  void reset(int64_t lane);

 private:
  struct Lane {
    bool started = false;
    std::vector<std::vector<float>>
        history;  // per op: the last input rows of a convolution, or h and c of an LSTM
  };

  void run_op(size_t index);
  void run_conv(const Op& op, size_t index);
  void run_lstm(const Op& op, size_t index);
  void lstm_recurrence(const Op& op, size_t index, float* out);
  int64_t pad_lane(const Op& op, size_t index, size_t lane, const float* in, int64_t rows,
                   float* padded);
  void finish(const Op& op, size_t lane, float* product, int64_t rows, float* out);
  int64_t output_rows_of(const Op& op, int64_t rows) const;
  std::vector<float>& buffer(size_t value);
  int64_t total_rows(size_t value) const;

  const Graph& graph_;
  Start start_;
  std::vector<Lane> lane_;
  std::vector<Block> blocks_;
  std::vector<std::vector<int64_t>> rows_;  // [value][lane]
  std::vector<size_t> slot_;  // [value] -> buffer; values whose lives do not overlap share one
  std::vector<std::vector<float>> buffers_;
  std::vector<float> scratch_, gates_, step_;
};

}  // namespace encodec_fast
