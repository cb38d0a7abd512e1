// What a model is to the native core: two operation lists with packed weights, and codebooks.
// Immutable once built and shared by all streams.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "engine/matrix.h"
#include "engine/memory.h"
#include "engine/shortlist.h"
#include "kernels/rvq.h"

namespace encodec_fast {

enum class OpKind { kConv, kConvTranspose, kLstm };

// Group norm with one group after the product, before the addition.
struct Norm {
  std::vector<float> scale, offset;  // [out_channels]; empty: no norm
  float eps = 0.0f;
};

struct Op {
  OpKind kind = OpKind::kConv;
  int input = 0;  // value 0 is the graph's input, value i + 1 the output of op i
  int add = -1;   // value added to the result, -1 for none
  bool elu = false;
  int64_t in_channels = 0, out_channels = 0;
  int64_t kernel = 1, stride = 1;
  int64_t pad_left = 0, pad_right = 0;  // conv: rows in front of and behind the input
  int64_t trim_left = 0;                // conv_transpose: rows dropped in front; 0 in causal graphs
  bool reflect = false;                 // padding mirrors the signal instead of being zero
  Matrix weight;  // conv [kernel * in][out]; conv_transpose [2 * in][stride * out]; lstm [in][4 *
                  // hidden]
  Matrix recurrent;  // lstm [hidden][4 * hidden], no bias
  Norm norm;
};

// Rows of an operation's result that are final after `rows` rows of its input: where more follow,
// or where the signal ends with them (`last`). `added`: rows of the value that it adds, if any.
int64_t result_rows(const Op& op, int64_t rows, int64_t added, bool last);

// By how many rows the result of `op` lags behind its input in a stream, if its input lags by
// `delay` and what it adds by `added`: rows that come only when more input does, or the end.
int64_t result_delay(const Op& op, int64_t delay, int64_t added);

// A checked list of operations. The builder methods throw std::invalid_argument and leave the graph
// as it was.
class Graph {
 public:
  explicit Graph(int64_t in_channels);

  int append(
      Op op);  // checks op against the values before it; returns the number of its output value

  // Ends the building: streams size their state by the graph, so it must not change under them.
  // Moves all weights into one place, in the order in which they are read. Throws
  // std::invalid_argument for a graph without operations or with a result nobody reads.
  void seal();

  const std::vector<Op>& ops() const { return ops_; }
  int64_t channels(int value) const { return values_[static_cast<size_t>(value)].channels; }
  int64_t in_channels() const { return values_.front().channels; }
  int64_t out_channels() const { return values_.back().channels; }
  // True if every output row depends on past input rows only (after the start).
  bool causal() const { return causal_; }
  // True if the graph runs in blocks; one that normalises needs its whole segment at once.
  bool streams() const { return streams_; }
  // Output rows that a stream holds back until more input comes, or its end; 0 in causal graphs.
  int64_t delay() const { return values_.back().delay; }
  // Input rows per block must be a multiple of `down`, which then gives rows * up / down output
  // rows.
  int64_t down() const { return down_; }
  int64_t up() const { return up_; }
  // Rows the first block of a stream must have, unless it is also the last: what the mirrored start
  // reaches into, and a row for every operation.
  int64_t start_rows() const { return start_rows_; }
  // The op after which a value is not needed any more.
  int last_use(int value) const { return values_[static_cast<size_t>(value)].last_use; }
  // Rows of a value per row of the graph's input, as a fraction.
  int64_t up_of(int value) const { return values_[static_cast<size_t>(value)].up; }
  int64_t down_of(int value) const { return values_[static_cast<size_t>(value)].down; }

 private:
  struct Value {
    int64_t channels;
    int64_t up, down;  // rows relative to the graph's input
    int last_use;
    int64_t delay;  // rows that a stream lacks, after whole blocks
  };
  void check(const Op& op) const;
  void check_lengths() const;
  void update_start_rows();

  std::vector<Op> ops_;
  std::vector<Value> values_;
  Memory weights_;
  bool sealed_ = false;
  bool causal_ = true, streams_ = true;
  int64_t activations_ = 0;
  int64_t down_ = 1, up_ = 1, start_rows_ = 1;
};

class Codebooks {
 public:
  // entries [n_q][size][dim]; throws std::invalid_argument on sizes outside 1..65536.
  Codebooks(const float* entries, int64_t n_q, int64_t size, int64_t dim);

  int64_t n_q() const { return n_q_; }
  int64_t size() const { return size_; }
  int64_t dim() const { return dim_; }
  RvqCodebooks view() const;

 private:
  int64_t n_q_, size_, dim_;
  int64_t padded_size_ = 0;
  std::vector<float> entries_, half_norm_;
  Memory panels_;
  Shortlists shortlists_;
};

}  // namespace encodec_fast
