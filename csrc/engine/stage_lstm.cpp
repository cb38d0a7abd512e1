// LSTM layers of a stage: the products of the inputs at once, then the recurrence step by step.
#include <algorithm>

#include "dispatch.h"
#include "engine/stage.h"

namespace encodec_fast {

void Stage::run_lstm(int index) {
  const Op& o = op(index);
  const int64_t gates = 4 * o.out_channels;
  int64_t total = 0;
  for (size_t w = 0; w < count_; ++w) total += rows(index + 1, w);
  parts_.clear();
  float* to = gates_.room(static_cast<size_t>(total * gates));
  for (size_t w = 0; w < count_; ++w) {
    if (rows(index + 1, w) == 0) continue;
    parts_.push_back({input(index, w), nullptr, to, nullptr, rows(index + 1, w)});
    to += rows(index + 1, w) * gates;
  }
  multiply(o.weight, o.in_channels, o.weight.bias.data());
  lstm_steps(index);
}

// gates_ holds the input's share of every step. One step of all lanes that still have rows is one
// product, so lanes share each read of the recurrent weights.
void Stage::lstm_steps(int index) {
  const Op& o = op(index);
  const int64_t hidden = o.out_channels;
  int64_t steps = 0;
  for (size_t w = 0; w < count_; ++w) steps = std::max(steps, rows(index + 1, w));
  for (int64_t t = 0; t < steps; ++t) {
    parts_.clear();
    float* first = gates_.data();
    for (size_t w = 0; w < count_; first += rows(index + 1, w) * 4 * hidden, ++w) {
      if (t >= rows(index + 1, w)) continue;
      parts_.push_back({state(index, w), nullptr, first + t * 4 * hidden, nullptr, 1});
    }
    // To and fro: what was read last is still in the second cache level.
    multiply(o.recurrent, hidden, nullptr, t % 2 == 1);
    const GemmPart* ready = parts_.data();
    for (size_t w = 0; w < count_; ++w) {
      if (t >= rows(index + 1, w)) continue;
      float* const h = state(index, w);
      kernels().lstm_cell(ready->out, h + hidden, h, hidden);
      const GemmPart to = outputs(index, w);
      const int64_t row = t * hidden;
      kernels().activate(h, to.add == nullptr ? nullptr : to.add + row,
                         to.out == nullptr ? nullptr : to.out + row,
                         to.elu == nullptr ? nullptr : to.elu + row, hidden);
      ++ready;
    }
  }
}

}  // namespace encodec_fast
