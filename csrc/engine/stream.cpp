#include "engine/stream.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <stdexcept>
#include <string>

#include "dispatch.h"

namespace encodec_fast {
namespace {

constexpr int64_t kMaxLanes = 1 << 16;

bool reads_input_as_it_is(const Op& op) {
  return op.kind == OpKind::kConv && op.kernel == 1 && !op.elu && op.norm.scale.empty();
}

// Rows a lane keeps between blocks.
int64_t history_rows(const Op& op) { return op.kind == OpKind::kConv ? op.pad_left : 1; }

}  // namespace

Stream::Stream(const Graph& graph, int64_t lanes, Start start) : graph_(graph), start_(start) {
  if (lanes < 1 || lanes > kMaxLanes) {
    throw std::invalid_argument("batch: expected 1.." + std::to_string(kMaxLanes) + ", found " +
                                std::to_string(lanes));
  }
  if (!graph.causal() && start != Start::kExact) {
    throw std::invalid_argument(
        "start: a model that needs whole segments has no low-latency start");
  }
  const size_t values = graph.ops().size() + 1;
  rows_.assign(values, std::vector<int64_t>(static_cast<size_t>(lanes), 0));
  // Linear scan: a value takes the first buffer whose value is no longer needed when its op runs.
  slot_.assign(values, 0);
  std::vector<int> busy_until;
  for (size_t v = 0; v < values; ++v) {
    const int op = static_cast<int>(v) - 1;
    size_t slot = 0;
    while (slot < busy_until.size() && busy_until[slot] >= op) ++slot;
    if (slot == busy_until.size()) busy_until.push_back(0);
    busy_until[slot] = v + 1 == values ? static_cast<int>(values)
                                       : std::max(graph.last_use(static_cast<int>(v)), op);
    slot_[v] = slot;
  }
  buffers_.resize(busy_until.size());
  lane_.resize(static_cast<size_t>(lanes));
  reset();
}

void Stream::reset() {
  for (int64_t lane = 0; lane < lanes(); ++lane) reset(lane);
}

void Stream::reset(int64_t index) {
  Lane& lane = lane_.at(static_cast<size_t>(index));
  lane.started = false;
  lane.history.resize(graph_.ops().size());
  for (size_t i = 0; i < lane.history.size(); ++i) {
    const Op& op = graph_.ops()[i];
    const int64_t size =
        op.kind == OpKind::kLstm ? 2 * op.out_channels : history_rows(op) * op.in_channels;
    lane.history[i].assign(static_cast<size_t>(size), 0.0f);
  }
}

std::vector<float>& Stream::buffer(size_t value) { return buffers_[slot_[value]]; }

int64_t Stream::total_rows(size_t value) const {
  return std::accumulate(rows_[value].begin(), rows_[value].end(), int64_t{0});
}

int64_t Stream::output_rows_of(const Op& op, int64_t rows) const {
  if (op.kind == OpKind::kConvTranspose) return rows * op.stride;
  return op.kind == OpKind::kConv ? (rows + op.stride - 1) / op.stride : rows;
}

float* Stream::input(const std::vector<Block>& blocks) {
  if (blocks.size() != lane_.size())
    throw std::invalid_argument("blocks: expected one per stream of the batch");
  for (size_t l = 0; l < blocks.size(); ++l) {
    const Block& b = blocks[l];
    if (b.rows == 0) continue;
    const bool whole = !lane_[l].started && b.last;
    if (b.rows < 0) throw std::invalid_argument("block: negative length");
    if (!graph_.causal() && !whole)
      throw std::invalid_argument("block: this model needs its whole segment at once");
    if (!b.last && b.rows % graph_.down() != 0) {
      throw std::invalid_argument("block: expected a multiple of " + std::to_string(graph_.down()) +
                                  " rows, found " + std::to_string(b.rows));
    }
    if (start_ == Start::kExact && !lane_[l].started && !b.last && b.rows < graph_.start_rows()) {
      throw std::invalid_argument("block: the first one needs " +
                                  std::to_string(graph_.start_rows()) + " rows, found " +
                                  std::to_string(b.rows));
    }
  }
  blocks_ = blocks;
  for (size_t l = 0; l < blocks.size(); ++l) rows_[0][l] = blocks[l].rows;
  buffer(0).resize(static_cast<size_t>(total_rows(0) * graph_.in_channels()));
  return buffer(0).data();
}

const float* Stream::run() {
  for (size_t i = 0; i < graph_.ops().size(); ++i) run_op(i);
  for (size_t l = 0; l < lane_.size(); ++l) {
    if (blocks_[l].rows > 0) lane_[l].started = true;
    if (blocks_[l].last) reset(static_cast<int64_t>(l));
  }
  return buffer(graph_.ops().size()).data();
}

void Stream::run_op(size_t index) {
  const Op& op = graph_.ops()[index];
  const size_t in = static_cast<size_t>(op.input);
  for (size_t l = 0; l < lane_.size(); ++l) rows_[index + 1][l] = output_rows_of(op, rows_[in][l]);
  if (op.add >= 0 && rows_[static_cast<size_t>(op.add)] != rows_[index + 1]) {
    throw std::invalid_argument("program: operation " + std::to_string(index) +
                                " adds a value of another length");
  }
  buffer(index + 1).resize(static_cast<size_t>(total_rows(index + 1) * op.out_channels));
  if (op.kind == OpKind::kLstm) {
    run_lstm(op, index);
  } else {
    run_conv(op, index);
  }
}

// Lays out one lane's input rows behind its history or start padding and in front of its end
// padding, after ELU. Returns the number of rows a stride-aligned convolution reads; keeps the new
// history.
int64_t Stream::pad_lane(const Op& op, size_t index, size_t l, const float* in, int64_t rows,
                         float* padded) {
  const int64_t width = op.in_channels;
  const int64_t left = history_rows(op);
  const bool last = blocks_[l].last;
  std::vector<float>& history = lane_[l].history[index];
  float* body = padded + left * width;
  if (op.elu) {
    kernels().elu(in, body, rows * width);
  } else {
    std::copy(in, in + rows * width, body);
  }
  int64_t right = 0;
  if (last) {
    right =
        op.kind == OpKind::kConv ? op.pad_right + output_rows_of(op, rows) * op.stride - rows : 1;
  }
  std::copy(history.begin(), history.end(), padded);
  const bool mirrored_start = op.reflect && start_ == Start::kExact && !lane_[l].started;
  // A whole signal shorter than its padding is first extended by zeros, mirrored, and cut again
  // (docs/program.md).
  const int64_t reach = mirrored_start ? std::max(left, right) : 0;
  const int64_t extended = std::max(rows, reach + 1);
  const auto mirror = [&](int64_t row) {
    int64_t source = row < 0 ? -row : row;
    if (source >= extended) source = 2 * (extended - 1) - source;
    float* to = body + row * width;
    if (source >= rows || !op.reflect) {
      std::fill(to, to + width, 0.0f);
    } else {
      std::copy(body + source * width, body + (source + 1) * width, to);
    }
  };
  if (mirrored_start) {
    for (int64_t row = -left; row < 0; ++row) mirror(row);
  }
  for (int64_t row = rows; row < rows + right; ++row) mirror(row);
  if (!last) std::copy(body + (rows - left) * width, body + rows * width, history.begin());
  return left + rows + right;
}

// Group norm and trimming of a product that is not yet in its final place.
void Stream::finish(const Op& op, size_t l, float* product, int64_t rows, float* out) {
  const int64_t width = op.out_channels;
  if (!op.norm.scale.empty()) {
    const int64_t n = rows * width;
    const float mean = static_cast<float>(kernels().sum(product, n) / static_cast<double>(n));
    const float variance =
        static_cast<float>(kernels().sum_squares(product, n, mean) / static_cast<double>(n));
    const float inverse = 1.0f / std::sqrt(variance + op.norm.eps);
    step_.resize(static_cast<size_t>(width));
    for (int64_t c = 0; c < width; ++c) step_[c] = inverse * op.norm.scale[c];
    const float* add = nullptr;
    if (op.add >= 0) {
      const size_t value = static_cast<size_t>(op.add);
      add = buffer(value).data() + std::accumulate(rows_[value].begin(),
                                                   rows_[value].begin() + static_cast<int64_t>(l),
                                                   int64_t{0}) *
                                       width;
    }
    kernels().normalize(product, rows, width, mean, step_.data(), op.norm.offset.data(), add);
  }
  if (op.kind == OpKind::kConvTranspose) {
    const float* from = product + op.trim_left * width;
    std::copy(from, from + (rows - op.stride) * width, out);
  }
}

void Stream::run_conv(const Op& op, size_t index) {
  const size_t value = static_cast<size_t>(op.input);
  const bool transposed = op.kind == OpKind::kConvTranspose;
  // Group norm counts the rows that trimming drops; otherwise a causal product lands in its place
  // at once.
  const bool untrimmed = transposed && (op.trim_left > 0 || !op.norm.scale.empty());
  const float* in = buffer(value).data();
  float* out = buffer(index + 1).data();
  const float* add =
      op.add >= 0 && op.norm.scale.empty() ? buffer(static_cast<size_t>(op.add)).data() : nullptr;
  GemmArgs g = {};
  g.panels = op.weight.panels.data();
  g.n = op.weight.n;
  g.k = op.weight.k;
  g.init = op.weight.bias.data();
  g.add_stride = g.out_stride = g.n;
  if (reads_input_as_it_is(op)) {
    g.a = in;
    g.a_stride = op.in_channels;
    g.m = total_rows(value);
    g.add = add;
    g.out = out;
    kernels().gemm(g);
    return;
  }
  for (size_t l = 0; l < lane_.size(); ++l) {
    const int64_t rows = rows_[value][l];
    const int64_t out_size = rows_[index + 1][l] * op.out_channels;
    if (rows > 0) {
      const int64_t most = history_rows(op) + rows + op.pad_right + op.stride;
      scratch_.resize(static_cast<size_t>(most * op.in_channels));
      pad_lane(op, index, l, in, rows, scratch_.data());
      g.a = scratch_.data();
      g.a_stride = (transposed ? 1 : op.stride) * op.in_channels;
      g.m = transposed ? rows + (untrimmed ? 1 : 0) : rows_[index + 1][l];
      g.add = add;
      if (untrimmed) gates_.resize(static_cast<size_t>(g.m * g.n));
      g.out = untrimmed ? gates_.data() : out;
      kernels().gemm(g);
      if (untrimmed || !op.norm.scale.empty())
        finish(op, l, g.out, g.m * g.n / op.out_channels, out);
    }
    in += rows * op.in_channels;
    out += out_size;
    if (add != nullptr) add += out_size;
  }
}

void Stream::run_lstm(const Op& op, size_t index) {
  const size_t value = static_cast<size_t>(op.input);
  const int64_t rows = total_rows(value);
  const int64_t hidden = op.out_channels;
  const float* in = buffer(value).data();
  if (op.elu) {
    scratch_.resize(static_cast<size_t>(rows * op.in_channels));
    kernels().elu(in, scratch_.data(), rows * op.in_channels);
    in = scratch_.data();
  }
  gates_.resize(static_cast<size_t>(rows * 4 * hidden));
  GemmArgs g = {};
  g.a = in;
  g.a_stride = g.k = op.in_channels;
  g.panels = op.weight.panels.data();
  g.m = rows;
  g.n = g.out_stride = 4 * hidden;
  g.init = op.weight.bias.data();
  g.out = gates_.data();
  kernels().gemm(g);
  float* out = buffer(index + 1).data();
  lstm_recurrence(op, index, out);
  if (op.add >= 0) {
    const float* add = buffer(static_cast<size_t>(op.add)).data();
    for (int64_t i = 0; i < rows * hidden; ++i) out[i] += add[i];
  }
}

// gates_ holds the input's share of every step. One step of all lanes that still have rows is one
// product, so lanes share each read of the recurrent weights.
void Stream::lstm_recurrence(const Op& op, size_t index, float* out) {
  const int64_t hidden = op.out_channels;
  const std::vector<int64_t>& rows = rows_[index + 1];
  const size_t lanes = lane_.size();
  step_.resize(lanes * static_cast<size_t>(5 * hidden));
  float* const states = step_.data();                                  // [active][hidden]
  float* const gates = states + static_cast<int64_t>(lanes) * hidden;  // [active][4 * hidden]
  GemmArgs g = {};
  g.a = states;
  g.a_stride = g.k = hidden;
  g.panels = op.recurrent.panels.data();
  g.n = g.init_stride = g.out_stride = 4 * hidden;
  g.init = gates;
  g.out = gates;
  const int64_t steps = *std::max_element(rows.begin(), rows.end());
  for (int64_t t = 0; t < steps; ++t) {
    int64_t first = 0;
    g.m = 0;
    for (size_t l = 0; l < lanes; first += rows[l], ++l) {
      if (t >= rows[l]) continue;
      const float* share = gates_.data() + (first + t) * 4 * hidden;
      const float* h = lane_[l].history[index].data();
      std::copy(h, h + hidden, states + g.m * hidden);
      std::copy(share, share + 4 * hidden, gates + g.m * 4 * hidden);
      ++g.m;
    }
    kernels().gemm(g);
    const float* ready = gates;
    first = 0;
    for (size_t l = 0; l < lanes; first += rows[l], ++l) {
      if (t >= rows[l]) continue;
      float* h = lane_[l].history[index].data();
      kernels().lstm_cell(ready, h + hidden, h, hidden);
      std::copy(h, h + hidden, out + (first + t) * hidden);
      ready += 4 * hidden;
    }
  }
}

}  // namespace encodec_fast
