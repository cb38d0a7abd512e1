#include "engine/program.h"

#include <algorithm>
#include <limits>
#include <numeric>
#include <stdexcept>
#include <string>

#include "engine/float_control.h"
#include "engine/require.h"
#include "kernels/gemm.h"

namespace encodec_fast {
namespace {

// Far above any real model; keeps every product of sizes inside int64.
constexpr int64_t kMaxChannels = 1 << 13;
constexpr int64_t kMaxKernel = 1 << 12;
constexpr int64_t kMaxRate = 1 << 20;
// Activations of all values per input row of a graph, in floats (16 MB): no program asks for memory
// without bound.
constexpr int64_t kMaxActivations = 1 << 22;
// Rows by which a value of a graph that streams may lag.
constexpr int64_t kMaxDelay = 1 << 30;

}  // namespace

int64_t result_rows(const Op& op, int64_t rows, int64_t added, bool last) {
  if (op.kind == OpKind::kConv) {
    rows = last ? (rows + op.stride - 1) / op.stride
                : std::max(rows - op.pad_right, int64_t{0}) / op.stride;
  } else if (op.kind == OpKind::kConvTranspose) {
    rows = std::max(rows * op.stride - (last ? 0 : op.trim_left), int64_t{0});
  }
  return op.add < 0 ? rows : std::min(rows, added);
}

int64_t result_delay(const Op& op, int64_t delay, int64_t added) {
  if (op.kind == OpKind::kConv) {
    delay = (delay + op.pad_right + op.stride - 1) / op.stride;
  } else if (op.kind == OpKind::kConvTranspose) {
    delay = delay * op.stride + op.trim_left;
  }
  return op.add < 0 ? delay : std::max(delay, added);
}

Graph::Graph(int64_t in_channels) {
  require(in_channels >= 1 && in_channels <= kMaxChannels,
          "in_channels: expected 1.." + std::to_string(kMaxChannels) + ", found " +
              std::to_string(in_channels));
  values_.push_back({in_channels, 1, 1, -1, 0});
}

void Graph::check(const Op& op) const {
  const int count = static_cast<int>(values_.size());
  require(op.input >= 0 && op.input < count,
          "input: no value " + std::to_string(op.input) + " before this operation");
  require(op.add >= -1 && op.add < count,
          "add: no value " + std::to_string(op.add) + " before this operation");
  require(op.in_channels == channels(op.input),
          "weight: expected " + std::to_string(channels(op.input)) + " input channels, found " +
              std::to_string(op.in_channels));
  require(op.out_channels >= 1 && op.out_channels <= kMaxChannels,
          "weight: too many output channels");
  require(op.kernel >= 1 && op.kernel <= kMaxKernel, "kernel: out of range");
  require(op.stride >= 1 && op.stride <= op.kernel, "stride: expected 1..kernel");
  require(
      op.pad_left >= 0 && op.pad_left < op.kernel && op.pad_right >= 0 && op.pad_right < op.kernel,
      "padding: expected 0..kernel - stride on each side");
  if (op.kind == OpKind::kConv) {
    require(!op.reflect || op.pad_right > 0 || op.pad_left >= op.stride - 1,
            "padding: a mirrored end needs kernel >= 2 * stride - 1");
    require(
        op.pad_left + op.pad_right == op.kernel - op.stride,
        "padding: left + right must be kernel - stride = " + std::to_string(op.kernel - op.stride));
  }
  if (op.kind == OpKind::kConvTranspose) {
    require(op.kernel == 2 * op.stride, "conv_transpose: kernel must be twice the stride");
    require(op.trim_left >= 0 && op.trim_left <= op.stride, "trim_left: expected 0..stride");
    require(op.add < 0, "conv_transpose: takes no add");
  }
  require(op.norm.scale.size() == op.norm.offset.size(), "norm: scale and offset differ in size");
  require(op.norm.scale.empty() || static_cast<int64_t>(op.norm.scale.size()) == op.out_channels,
          "norm: expected one scale per output channel");
}

int Graph::append(Op op) {
  require(!sealed_, "graph: is in use and cannot be changed");
  check(op);
  const Value& in = values_[static_cast<size_t>(op.input)];
  Value out = {op.out_channels, in.up, in.down, -1, 0};
  const int64_t added = op.add < 0 ? 0 : values_[static_cast<size_t>(op.add)].delay;
  const int64_t delay = result_delay(op, in.delay, added);
  out.delay = std::min(delay, kMaxDelay);
  if (op.kind == OpKind::kConv) out.down *= op.stride;
  if (op.kind == OpKind::kConvTranspose) out.up *= op.stride;
  require(out.up <= kMaxRate && out.down <= kMaxRate,
          "stride: the product of all strides is too large");
  const int64_t activations = activations_ + (out.channels * out.up + out.down - 1) / out.down;
  require(activations <= kMaxActivations,
          "operation: with its result the graph has too many values per input row");
  const int64_t down = std::lcm(down_, out.down);
  require(down <= kMaxRate, "stride: the strides of all operations have no small common multiple");
  const int index = static_cast<int>(ops_.size());
  if (op.add >= 0) {
    const Value& extra = values_[static_cast<size_t>(op.add)];
    require(extra.channels == out.channels && extra.up * out.down == out.up * extra.down,
            "add: value " + std::to_string(op.add) +
                " has other channels or another rate than the result");
  }
  causal_ = causal_ && op.pad_right == 0 && op.trim_left == 0 && op.norm.scale.empty();
  streams_ = streams_ && op.norm.scale.empty() && delay <= kMaxDelay;
  values_[static_cast<size_t>(op.input)].last_use = index;
  if (op.add >= 0) values_[static_cast<size_t>(op.add)].last_use = index;
  ops_.push_back(std::move(op));
  values_.push_back(out);
  activations_ = activations;
  down_ = down;
  up_ = out.up * (down_ / out.down);
  update_start_rows();
  return index + 1;
}

// Equal rates are not equal lengths where rates fall and rise again: 2 * ceil(T / 2) is not T. The
// lengths repeat with the period down().
void Graph::check_lengths() const {
  constexpr int64_t kMostWork = int64_t{1} << 24;
  const auto falls = [](const Op& op) { return op.kind == OpKind::kConv && op.stride > 1; };
  const auto rises = [](const Op& op) { return op.kind == OpKind::kConvTranspose; };
  if (std::none_of(ops_.begin(), ops_.end(), falls)) return;
  if (std::none_of(ops_.begin(), ops_.end(), rises)) return;
  if (std::none_of(ops_.begin(), ops_.end(), [](const Op& op) { return op.add >= 0; })) return;
  require(down_ <= kMostWork / static_cast<int64_t>(ops_.size()),
          "add: too many different strides to compare lengths");
  std::vector<int64_t> length(values_.size());
  for (int64_t rows = 1; rows <= down_; ++rows) {
    length[0] = rows;
    for (size_t i = 0; i < ops_.size(); ++i) {
      const Op& op = ops_[i];
      const int64_t in = length[static_cast<size_t>(op.input)];
      length[i + 1] = rises(op) ? in * op.stride : (in + op.stride - 1) / op.stride;
      require(op.add < 0 || length[static_cast<size_t>(op.add)] == length[i + 1],
              "operation " + std::to_string(i) + ": adds a value that is longer or shorter for " +
                  std::to_string(rows) + " rows");
    }
  }
}

void Graph::seal() {
  if (sealed_) return;
  require(!ops_.empty(), "graph: has no operations");
  for (size_t v = 0; v + 1 < values_.size(); ++v) {
    require(values_[v].last_use >= 0, "graph: nothing reads value " + std::to_string(v));
  }
  check_lengths();
  std::vector<Matrix*> matrices;
  for (Op& op : ops_) matrices.insert(matrices.end(), {&op.weight, &op.recurrent});
  weights_ = settle(matrices);
  sealed_ = true;
}

void Graph::update_start_rows() {
  // Mirroring p rows in front of the first needs p + 1 real rows of that value in the first block.
  const auto need = [&](const Value& value, int64_t rows) {
    if (streams_) rows += value.delay;
    start_rows_ = std::max(start_rows_, (rows * value.down + value.up - 1) / value.up);
  };
  for (size_t i = 0; i < ops_.size(); ++i) {
    const Op& op = ops_[i];
    need(values_[i + 1], 1);
    if (op.kind == OpKind::kConv && op.reflect)
      need(values_[static_cast<size_t>(op.input)], op.pad_left + 1);
  }
  start_rows_ = (start_rows_ + down_ - 1) / down_ * down_;
}

Codebooks::Codebooks(const float* entries, int64_t n_q, int64_t size, int64_t dim)
    : n_q_(n_q), size_(size), dim_(dim), padded_size_(whole_panels(size)) {
  require(n_q >= 1 && n_q <= 1024, "codebooks: expected 1..1024 codebooks");
  require(size >= 2 && size <= 65536, "codebooks: expected 2..65536 entries");
  require(dim >= 1 && dim <= kMaxChannels, "codebooks: dimension out of range");
  const FloatControl control;
  shortlists_ = Shortlists(entries, n_q, size, dim);
  const int64_t book = size * dim;
  entries_.assign(entries, entries + n_q * book);
  const size_t panel_floats = static_cast<size_t>(n_q * padded_size_ * dim);
  panels_ = allocate(panel_floats * sizeof(float));
  float* const panels = reinterpret_cast<float*>(panels_.get());
  std::fill_n(panels, panel_floats, 0.0f);
  // Padding scores minus infinity, so it is never chosen.
  half_norm_.assign(static_cast<size_t>(n_q * padded_size_),
                    -std::numeric_limits<float>::infinity());
  for (int64_t q = 0; q < n_q; ++q) {
    pack_panels(entries + q * book, dim, size, 1, dim, panels + q * padded_size_ * dim);
    for (int64_t e = 0; e < size; ++e) {
      double norm = 0.0;  // one definite order; rounded to float32 once
      for (int64_t d = 0; d < dim; ++d) {
        const double v = entries[q * book + e * dim + d];
        norm += v * v;
      }
      half_norm_[static_cast<size_t>(q * padded_size_ + e)] = static_cast<float>(-0.5 * norm);
    }
  }
}

RvqCodebooks Codebooks::view() const {
  return {reinterpret_cast<const float*>(panels_.get()),
          entries_.data(),
          half_norm_.data(),
          padded_size_ * dim_,
          padded_size_,
          size_,
          dim_,
          shortlists_.get()};
}

}  // namespace encodec_fast
