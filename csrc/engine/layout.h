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
// Rows of its input that a convolution keeps between blocks.
int64_t history_rows(const Op& op);
// Rows behind the last of `rows` that the end of a stream needs.
int64_t end_rows(const Op& op, int64_t rows);
int64_t output_rows_of(const Op& op, int64_t rows);

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
  };
  struct Plan {
    int input = -1, add = -1;  // forms that the op reads
    std::vector<int> outputs;  // forms of its result; none for the result of the last op
  };

  // Operations [first, end) of graph, which must outlive this.
  Layout(const Graph& graph, int first, int end);

  const std::vector<Form>& forms() const { return forms_; }
  const Form& form(int index) const { return forms_[static_cast<size_t>(index)]; }
  const Plan& plan(int op) const { return plans_[static_cast<size_t>(op - first_)]; }
  size_t slots() const { return slots_; }

  // Rows of a block are a multiple of down(); of the first one of a stream that starts mirrored, at
  // least start_rows(); the last block may be shorter.
  int64_t down() const { return down_; }
  int64_t start_rows() const { return start_rows_; }
  int64_t output_rows(int64_t rows) const;
  // In bytes: what one input row occupies in all forms, in gates and in the result; what the
  // padding of a block occupies; all weights.
  double row_bytes() const { return row_bytes_; }
  double padding_bytes() const { return padding_bytes_; }
  int64_t weight_bytes() const { return weight_bytes_; }

 private:
  const Op& op(int index) const { return graph_.ops()[static_cast<size_t>(index)]; }
  Plan& plan_of(int op) { return plans_[static_cast<size_t>(op - first_)]; }
  int form_of(int value, bool elu, int reader, int op);
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
