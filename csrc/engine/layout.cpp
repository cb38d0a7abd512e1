#include "engine/layout.h"

#include <algorithm>
#include <numeric>
#include <utility>

namespace encodec_fast {

bool padded(const Op& op) {
  return op.kind == OpKind::kConvTranspose || (op.kind == OpKind::kConv && op.kernel > 1);
}

int64_t history_rows(const Op& op) { return op.kind == OpKind::kConv ? op.pad_left : 1; }

int64_t output_rows_of(const Op& op, int64_t rows) {
  if (op.kind == OpKind::kConvTranspose) return rows * op.stride;
  return op.kind == OpKind::kConv ? (rows + op.stride - 1) / op.stride : rows;
}

int64_t end_rows(const Op& op, int64_t rows) {
  if (op.kind == OpKind::kConvTranspose) return 1;
  return op.pad_right + output_rows_of(op, rows) * op.stride - rows;
}

Layout::Layout(const Graph& graph, int first, int end) : graph_(graph), first_(first), end_(end) {
  plans_.resize(static_cast<size_t>(end - first));
  plan_forms();
  plan_slots();
  plan_rates();
}

int Layout::form_of(int value, bool elu, int reader, int index) {
  for (size_t f = 0; f < forms_.size(); ++f) {
    Form& form = forms_[f];
    if (form.value != value || form.elu != elu) continue;
    if (form.reader != reader && form.reader != -1 && reader != -1) continue;
    form.reader = std::max(form.reader, reader);
    form.last_use = std::max(form.last_use, index);
    return static_cast<int>(f);
  }
  forms_.push_back({value, elu, reader, index, 0});
  return static_cast<int>(forms_.size()) - 1;
}

void Layout::plan_forms() {
  // Padded readers first: a reader that needs no padding can share the form of one that does.
  for (const bool with_padding : {true, false}) {
    for (int i = first_; i < end_; ++i) {
      if (padded(op(i)) == with_padding)
        plan_of(i).input = form_of(op(i).input, op(i).elu, with_padding ? i : -1, i);
      if (!with_padding && op(i).add >= 0) plan_of(i).add = form_of(op(i).add, false, -1, i);
    }
  }
  for (size_t f = 0; f < forms_.size(); ++f) {
    const int value = forms_[f].value;
    if (value > first_) plan_of(value - 1).outputs.push_back(static_cast<int>(f));
  }
}

void Layout::plan_slots() {
  // Linear scan: a form takes the first buffer whose form is no longer needed when its op runs.
  std::vector<int> busy_until;
  for (int value = first_; value < end_; ++value) {
    for (Form& form : forms_) {
      if (form.value != value) continue;
      size_t slot = 0;
      while (slot < busy_until.size() && busy_until[slot] >= value - 1) ++slot;
      if (slot == busy_until.size()) busy_until.push_back(0);
      busy_until[slot] = std::max(form.last_use, value - 1);
      form.slot = slot;
    }
  }
  slots_ = busy_until.size();
}

void Layout::plan_rates() {
  // Rows of a value per row of the stage's input, as a fraction.
  const auto rate = [&](int value) {
    const int64_t up = graph_.up_of(value) * graph_.down_of(first_);
    const int64_t down = graph_.down_of(value) * graph_.up_of(first_);
    const int64_t common = std::gcd(up, down);
    return std::pair<int64_t, int64_t>(up / common, down / common);
  };
  const auto bytes = [&](int value) {
    const auto [up, down] = rate(value);
    return static_cast<double>(graph_.channels(value)) * sizeof(float) * static_cast<double>(up) /
           static_cast<double>(down);
  };
  for (const Form& form : forms_) {
    row_bytes_ += bytes(form.value);
    if (form.reader < 0) continue;
    const double around = static_cast<double>(op(form.reader).kernel + op(form.reader).stride);
    padding_bytes_ += around * static_cast<double>(graph_.channels(form.value)) * sizeof(float);
  }
  for (int i = first_; i < end_; ++i) {
    if (op(i).kind == OpKind::kLstm) row_bytes_ += 4.0 * bytes(i + 1);
  }
  row_bytes_ += bytes(end_);
  int64_t start = 1;
  for (int i = first_; i < end_; ++i) {
    const auto [up, down] = rate(i + 1);
    down_ = std::lcm(down_, down);
    weight_bytes_ += static_cast<int64_t>(op(i).weight.bytes() + op(i).recurrent.bytes());
    const auto [in_up, in_down] = rate(op(i).input);
    if (op(i).kind == OpKind::kConv && op(i).reflect)
      start = std::max(start, ((op(i).pad_left + 1) * in_down + in_up - 1) / in_up);
  }
  start_rows_ = (start + down_ - 1) / down_ * down_;
}

int64_t Layout::output_rows(int64_t rows) const {
  std::vector<int64_t> length(static_cast<size_t>(end_ - first_) + 1, rows);
  for (int i = first_; i < end_; ++i) {
    length[static_cast<size_t>(i + 1 - first_)] =
        output_rows_of(op(i), length[static_cast<size_t>(op(i).input - first_)]);
  }
  return length.back();
}

}  // namespace encodec_fast
