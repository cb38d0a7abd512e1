#include "engine/layout.h"

#include <algorithm>
#include <numeric>
#include <utility>

namespace encodec_fast {

bool padded(const Op& op) {
  return op.kind == OpKind::kConvTranspose || (op.kind == OpKind::kConv && op.kernel > 1);
}

int64_t start_padding(const Op& op) { return op.kind == OpKind::kConv ? op.pad_left : 1; }

int64_t end_padding(const Op& op, int64_t rows) {
  if (op.kind == OpKind::kConvTranspose) return 1;
  return op.pad_right + (rows + op.stride - 1) / op.stride * op.stride - rows;
}

int64_t next_row(const Op& op, int64_t rows, int64_t results) {
  if (op.kind == OpKind::kConvTranspose) return rows - 1;
  return results * op.stride - op.pad_left;
}

Layout::Layout(const Graph& graph, int first, int end) : graph_(graph), first_(first), end_(end) {
  plans_.resize(static_cast<size_t>(end - first));
  plan_forms();
  plan_slots();
  plan_rates();
}

int Layout::form_of(int value, bool elu, int reader) {
  for (size_t f = 0; f < forms_.size(); ++f) {
    Form& form = forms_[f];
    if (form.value != value || form.elu != elu) continue;
    if (form.reader != reader && form.reader != -1 && reader != -1) continue;
    form.reader = std::max(form.reader, reader);
    return static_cast<int>(f);
  }
  forms_.push_back({value, elu, reader, -1, 0, {}, {}});
  return static_cast<int>(forms_.size()) - 1;
}

void Layout::plan_forms() {
  // Padded readers first: a reader that needs no padding can share the form of one that does.
  for (const bool with_padding : {true, false}) {
    for (int i = first_; i < end_; ++i) {
      if (padded(op(i)) == with_padding) {
        plan_of(i).input = form_of(op(i).input, op(i).elu, with_padding ? i : -1);
        forms_[static_cast<size_t>(plan_of(i).input)].inputs.push_back(i);
      }
      if (!with_padding && op(i).add >= 0) {
        plan_of(i).add = form_of(op(i).add, false, -1);
        forms_[static_cast<size_t>(plan_of(i).add)].adds.push_back(i);
      }
    }
  }
  for (size_t f = 0; f < forms_.size(); ++f) {
    Form& form = forms_[f];
    for (const int i : form.inputs) form.last_use = std::max(form.last_use, i);
    for (const int i : form.adds) form.last_use = std::max(form.last_use, i);
    plan_of(form.last_use).done.push_back(static_cast<int>(f));
    if (form.value > first_) plan_of(form.value - 1).outputs.push_back(static_cast<int>(f));
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
  // By how many rows values lag behind the stage's input.
  std::vector<int64_t> delays = {0};
  const auto delay = [&](int value) { return delays[static_cast<size_t>(value - first_)]; };
  for (int i = first_; i < end_; ++i) {
    const int64_t added = op(i).add < 0 ? 0 : delay(op(i).add);
    delays.push_back(graph_.streams() ? result_delay(op(i), delay(op(i).input), added) : 0);
  }
  for (const Form& form : forms_) {
    row_bytes_ += bytes(form.value);
    // Padding, or what is kept of the blocks before.
    int64_t around = form.reader < 0 ? 0 : op(form.reader).kernel + op(form.reader).stride;
    for (const int i : form.inputs) {
      if (op(i).kind == OpKind::kConvTranspose) continue;
      around = std::max(around, delay(i + 1) * op(i).stride - delay(form.value) + op(i).kernel);
    }
    for (const int i : form.adds) around = std::max(around, delay(i + 1) - delay(form.value));
    padding_bytes_ += static_cast<double>(around * graph_.channels(form.value)) * sizeof(float);
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
    const auto need = [&](int value, int64_t rows) {
      const auto [value_up, value_down] = rate(value);
      start = std::max(start, ((rows + delay(value)) * value_down + value_up - 1) / value_up);
    };
    need(i + 1, 1);
    if (op(i).kind == OpKind::kConv && op(i).reflect) need(op(i).input, op(i).pad_left + 1);
  }
  start_rows_ = (start + down_ - 1) / down_ * down_;
}

}  // namespace encodec_fast
