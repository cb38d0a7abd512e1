// A run of consecutive operations of a graph for a batch of streams: their state, and the execution
// of one block of each.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "engine/block.h"
#include "engine/layout.h"
#include "engine/memory.h"
#include "engine/moments.h"

namespace encodec_fast {

// A block of one stream.
struct Work {
  int64_t lane;
  const float* in;  // [rows][in_channels]
  float* out;       // [output_rows(lane, rows, last)][out_channels]
  int64_t rows;     // at least 1, but for the last block of a stream that has begun
  bool last;        // the stream ends with this block and starts anew with the next
};

// Time and multiply-accumulates of one operation, summed over runs.
struct Timing {
  double seconds = 0.0;
  int64_t macs = 0;
};

class Stage {
 public:
  // Operations [first, end) of graph, which must outlive the stage; nothing but value `first`
  // crosses its beginning.
  Stage(const Graph& graph, int first, int end, int64_t lanes, Start start);

  // Each lane at most once; layout() says which lengths a block may have.
  void run(const std::vector<Work>& work);
  void reset(int64_t lane);

  int64_t in_channels() const { return graph_.channels(first_); }
  int64_t out_channels() const { return graph_.channels(end_); }
  const Layout& layout() const { return layout_; }
  // Rows of its input per row of the graph's.
  double rate() const {
    return static_cast<double>(graph_.up_of(first_)) / static_cast<double>(graph_.down_of(first_));
  }
  // Least rows of a lane's next block, unless it is the last.
  int64_t start_rows(int64_t lane) const;
  // Rows of the result of a lane's next block.
  int64_t output_rows(int64_t lane, int64_t rows, bool last);

  void profile(bool on);
  const std::vector<Timing>& timings() const { return timings_; }  // per op; empty: not measured

 private:
  struct Lane {
    bool started = false;
    std::vector<int64_t> ends;  // per value: its rows so far; none before the first block
    // Per form: the last rows, which a later block needs.
    std::vector<std::vector<float>> history;
    std::vector<std::vector<float>> state;  // per op: h and c of an LSTM. Empty: zeros.
  };

  // Group norm of one block's product: fma(x - mean, scale, offset).
  struct Normed {
    float mean = 0.0f;
    std::vector<float> scale;
  };

  const Op& op(int index) const { return graph_.ops()[static_cast<size_t>(index)]; }
  const std::vector<int64_t>& ends_after(const Lane& lane, int64_t rows, bool last);
  // Of the w-th block: the rows of a value before it and in it.
  int64_t& before(int value, size_t w) { return before_[place(value - first_, w)]; }
  int64_t& rows(int value, size_t w) { return rows_[place(value - first_, w)]; }
  float* body(int form, size_t w) { return body_[place(form, w)]; }
  size_t place(int index, size_t w) const { return static_cast<size_t>(index) * count_ + w; }
  Lane& lane(size_t w) { return lane_[static_cast<size_t>((*work_)[w].lane)]; }
  bool last(size_t w) const { return (*work_)[w].last; }
  // Where an op reads its input for its first result.
  const float* input(int index, size_t w);
  float* state(int index, size_t w);

  Normed& normed(int index, size_t w) { return normed_[place(index - first_, w)]; }
  NormTerm term(int index, size_t w, const float* x);
  bool is_deferred(int index) const;
  void count_rows();
  void make_room(int value);
  void take_input();
  void pad(int index, size_t w);
  void keep(int form, size_t w);
  GemmPart outputs(int index, size_t w);
  void copy_to_other_forms(int index, size_t w);
  void run_op(int index);
  void run_conv(int index);
  bool needs_finish(int index, size_t w);
  int64_t product_rows(int index, size_t w);
  void run_conv_then_finish(int index, size_t w);
  void multiply(const Matrix& weight, int64_t a_stride, const float* bias, bool backward = false);
  void run_lstm(int index);
  void lstm_steps(int index);

  const Graph& graph_;
  int first_, end_;
  Start start_;
  Layout layout_;
  std::vector<bool> deferred_;  // per op
  std::vector<Lane> lane_;
  std::vector<Timing> timings_;

  // Of the current run.
  const std::vector<Work>* work_ = nullptr;
  size_t count_ = 0;
  std::vector<int64_t> ends_;           // [value - first] of one block
  std::vector<int64_t> before_, rows_;  // [value - first][w]
  std::vector<float*> body_;            // [form][w]: the first row behind history or padding
  std::vector<int64_t> front_;          // [form][w]: rows of history or padding
  std::vector<Buffer> buffers_;
  std::vector<GemmPart> parts_;
  Buffer product_, gates_;
  std::vector<Normed> normed_;  // [op - first][w]
  Moments moments_;
};

}  // namespace encodec_fast
