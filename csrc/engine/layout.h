// How a run of consecutive operations is laid out in memory: which forms of each value are kept, in
// which buffers, and what lengths a block may have.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "engine/program.h"

namespace encodec_fast {

// Whether rows in front of or behind a block belong to what the operation reads.
bool padded(const Op& op);
// Rows of padding in front of the first row of a convolution's input.
int64_t start_padding(const Op& op);
// Rows of padding behind the last of all `rows` of its input.
int64_t end_padding(const Op& op, int64_t rows);
// The first row of its input that an operation reads for its next results, after `rows` of its
// input and `results`.
int64_t next_row(const Op& op, int64_t rows, int64_t results);

class Layout {
 public:
  // Rows of a value as its readers want them: with or without ELU, and with room for the padding of
  // one convolution around them.
  struct Form {
    int value;
    bool elu;
    int reader;    // the convolution whose padding stands around the rows, -1 for none
    int last_use;  // op
    size_t slot;   // buffer; forms whose lives do not overlap share one
    // The ops that read it, as input and to add it.
    std::vector<int> inputs, adds;
  };
  struct Plan {
    int input = -1, add = -1;  // forms that the op reads
    std::vector<int> outputs;  // forms of its result; none for the result of the last op
    std::vector<int> done;     // forms that no later op reads
  };

  // Operations [first, end) of graph, which must outlive this.
  Layout(const Graph& graph, int first, int end);

  const std::vector<Form>& forms() const { return forms_; }
  const Form& form(int index) const { return forms_[static_cast<size_t>(index)]; }
  const Plan& plan(int op) const { return plans_[static_cast<size_t>(op - first_)]; }
  size_t slots() const { return slots_; }

  // Blocks of a multiple of down() rows give as many results each, whatever came before. The first
  // one of a stream, unless it is the last too, has at least start_rows(): for the mirrored start,
  // and so that each op has a result.
  int64_t down() const { return down_; }
  int64_t start_rows() const { return start_rows_; }
  // In bytes: what one input row occupies in all forms, in gates and in the result; what the
  // padding of a block occupies; all weights.
  double row_bytes() const { return row_bytes_; }
  double padding_bytes() const { return padding_bytes_; }
  int64_t weight_bytes() const { return weight_bytes_; }

 private:
  const Op& op(int index) const { return graph_.ops()[static_cast<size_t>(index)]; }
  Plan& plan_of(int op) { return plans_[static_cast<size_t>(op - first_)]; }
  int form_of(int value, bool elu, int reader);
  void plan_forms();
  void plan_slots();
  void plan_rates();

  const Graph& graph_;
  int first_, end_;
  std::vector<Form> forms_;
  std::vector<Plan> plans_;
  size_t slots_ = 0;
  int64_t down_ = 1, start_rows_ = 1, weight_bytes_ = 0;
  double row_bytes_ = 0.0, padding_bytes_ = 0.0;
};

}  // namespace encodec_fast
