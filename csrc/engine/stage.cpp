#include "engine/stage.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <stdexcept>
#include <string>

#include "dispatch.h"

namespace encodec_fast {
namespace {

// A product that is reduced at once is made in pieces of this many values, which stay in cache.
constexpr int64_t kPiece = 1 << 14;

// Group norm counts the rows that trimming drops; otherwise a transposed product is final.
bool needs_finish(const Op& op) { return !op.norm.scale.empty() || op.trim_left > 0; }

}  // namespace

Stage::Stage(const Graph& graph, int first, int end, int64_t lanes, Start start)
    : graph_(graph),
      first_(first),
      end_(end),
      start_(start),
      layout_(graph, first, end),
      lane_(static_cast<size_t>(lanes)),
      buffers_(layout_.slots()) {
  for (int i = first_; i < end_; ++i) deferred_.push_back(is_deferred(i));
}

// Whether the norm of an op is applied by the only reader of its result, a normed op that adds it:
// that spares a pass over the value.
bool Stage::is_deferred(int index) const {
  const int value = index + 1;
  const Op& o = op(index);
  if (o.kind != OpKind::kConv || o.norm.scale.empty() || o.add >= 0 || value == end_) return false;
  int readers = 0;
  for (int i = value; i < end_; ++i) readers += (op(i).input == value) + (op(i).add == value);
  const int last = graph_.last_use(value);
  return readers == 1 && last < end_ && op(last).add == value && !op(last).norm.scale.empty();
}

int64_t Stage::start_rows(int64_t lane) const {
  const bool fresh = start_ == Start::kExact && !lane_[static_cast<size_t>(lane)].started;
  return fresh ? layout_.start_rows() : layout_.down();
}

void Stage::reset(int64_t index) {
  Lane& lane = lane_[static_cast<size_t>(index)];
  lane.started = false;
  for (std::vector<float>& rows : lane.history) rows.clear();
}

void Stage::profile(bool on) {
  timings_.clear();
  if (on) timings_.resize(static_cast<size_t>(end_ - first_));
}

std::vector<float>& Stage::history(int index, size_t w) {
  Lane& lane = lane_[static_cast<size_t>((*work_)[w].lane)];
  lane.history.resize(static_cast<size_t>(end_ - first_));
  std::vector<float>& rows = lane.history[static_cast<size_t>(index - first_)];
  if (rows.empty()) {
    const Op& o = op(index);
    const int64_t size =
        o.kind == OpKind::kLstm ? 2 * o.out_channels : history_rows(o) * o.in_channels;
    rows.assign(static_cast<size_t>(size), 0.0f);
  }
  return rows;
}

void Stage::run(const std::vector<Work>& work) {
  work_ = &work;
  count_ = work.size();
  rows_.assign(static_cast<size_t>(end_ - first_ + 1) * count_, 0);
  body_.assign(layout_.forms().size() * count_, nullptr);
  normed_.resize(static_cast<size_t>(end_ - first_) * count_);
  for (size_t w = 0; w < count_; ++w) rows(first_, w) = work[w].rows;
  make_room(first_);
  take_input();
  for (int i = first_; i < end_; ++i) {
    if (timings_.empty()) {
      run_op(i);
      continue;
    }
    const auto start = std::chrono::steady_clock::now();
    run_op(i);
    Timing& timing = timings_[static_cast<size_t>(i - first_)];
    timing.seconds +=
        std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    for (size_t w = 0; w < count_; ++w) {
      const Op& o = op(i);
      const int64_t m = o.kind == OpKind::kConvTranspose
                            ? rows(o.input, w) + (needs_finish(o) ? 1 : 0)
                            : rows(i + 1, w);
      timing.macs += m * (o.weight.k * o.weight.n + o.recurrent.k * o.recurrent.n);
    }
  }
  for (const Work& block : work) {
    lane_[static_cast<size_t>(block.lane)].started = true;
    if (block.last) reset(block.lane);
  }
}

// Lays out the forms of a value whose lengths are known: per block its padding, rows and end.
void Stage::make_room(int value) {
  const int64_t width = graph_.channels(value);
  for (size_t f = 0; f < layout_.forms().size(); ++f) {
    const Layout::Form& form = layout_.forms()[f];
    if (form.value != value) continue;
    const int64_t left = form.reader < 0 ? 0 : history_rows(op(form.reader));
    const auto size_of = [&](size_t w) {
      const int64_t right = form.reader < 0 ? 0 : end_rows(op(form.reader), rows(value, w));
      return (left + rows(value, w) + right) * width;
    };
    int64_t total = 0;
    for (size_t w = 0; w < count_; ++w) total += size_of(w);
    float* at = buffers_[form.slot].room(static_cast<size_t>(total));
    for (size_t w = 0; w < count_; ++w) {
      body_[place(static_cast<int>(f), w)] = at + left * width;
      at += size_of(w);
    }
  }
}

void Stage::take_input() {
  for (size_t f = 0; f < layout_.forms().size(); ++f) {
    const Layout::Form& form = layout_.forms()[f];
    if (form.value != first_) continue;
    for (size_t w = 0; w < count_; ++w) {
      float* to = body(static_cast<int>(f), w);
      const int64_t n = rows(first_, w) * in_channels();
      kernels().activate((*work_)[w].in, nullptr, form.elu ? nullptr : to, form.elu ? to : nullptr,
                         n);
    }
  }
}

// Where the result of an op goes: to the stage's output, or to its first plain and its first
// activated form.
GemmPart Stage::outputs(int index, size_t w) {
  GemmPart part = {};
  if (index + 1 == end_) part.out = (*work_)[w].out;
  for (const int f : layout_.plan(index).outputs) {
    float*& to = layout_.form(f).elu ? part.elu : part.out;
    if (to == nullptr) to = body(f, w);
  }
  if (layout_.plan(index).add >= 0) part.add = body(layout_.plan(index).add, w);
  return part;
}

void Stage::copy_to_other_forms(int index, size_t w) {
  const GemmPart done = outputs(index, w);
  const int64_t n = rows(index + 1, w) * op(index).out_channels;
  for (const int f : layout_.plan(index).outputs) {
    const float* from = layout_.form(f).elu ? done.elu : done.out;
    float* to = body(f, w);
    if (from != nullptr && to != from) std::copy(from, from + n, to);
  }
}

// Fills the rows in front of and behind one block: its history or start padding, its end padding.
void Stage::pad(int index, size_t w) {
  const Op& o = op(index);
  const int64_t width = o.in_channels;
  const int64_t left = history_rows(o);
  const int64_t count = rows(o.input, w);
  const bool last = (*work_)[w].last;
  const bool started = lane_[static_cast<size_t>((*work_)[w].lane)].started;
  float* const first = body(layout_.plan(index).input, w);
  const int64_t right = last ? end_rows(o, count) : 0;
  const bool mirrored_start = o.reflect && start_ == Start::kExact && !started;
  // A whole signal shorter than its padding is first extended by zeros, mirrored, and cut again
  // (docs/program.md).
  const int64_t reach = mirrored_start ? std::max(left, right) : 0;
  const int64_t extended = std::max(count, reach + 1);
  const auto mirror = [&](int64_t row) {
    int64_t source = row < 0 ? -row : row;
    if (source >= extended) source = 2 * (extended - 1) - source;
    float* to = first + row * width;
    if (source >= count || !o.reflect) {
      std::fill(to, to + width, 0.0f);
    } else {
      std::copy(first + source * width, first + (source + 1) * width, to);
    }
  };
  if (mirrored_start) {
    for (int64_t row = -left; row < 0; ++row) mirror(row);
  } else {
    const std::vector<float>& kept = history(index, w);
    std::copy(kept.begin(), kept.end(), first - left * width);
  }
  for (int64_t row = count; row < count + right; ++row) mirror(row);
}

void Stage::keep_history(int index, size_t w) {
  if ((*work_)[w].last) return;
  std::vector<float>& kept = history(index, w);
  const float* end =
      body(layout_.plan(index).input, w) + rows(op(index).input, w) * op(index).in_channels;
  std::copy(end - kept.size(), end, kept.begin());
}

void Stage::run_op(int index) {
  const Op& o = op(index);
  for (size_t w = 0; w < count_; ++w) {
    rows(index + 1, w) = output_rows_of(o, rows(o.input, w));
    if (o.add >= 0 && rows(o.add, w) != rows(index + 1, w)) {
      throw std::invalid_argument("program: operation " + std::to_string(index) +
                                  " adds a value of another length");
    }
  }
  make_room(index + 1);
  if (o.kind == OpKind::kLstm) {
    run_lstm(index);
  } else {
    run_conv(index);
  }
  for (size_t w = 0; w < count_; ++w) copy_to_other_forms(index, w);
}

void Stage::run_conv(int index) {
  const Op& o = op(index);
  if (padded(o)) {
    for (size_t w = 0; w < count_; ++w) pad(index, w);
  }
  if (needs_finish(o)) {
    for (size_t w = 0; w < count_; ++w) run_conv_then_finish(index, w);
  } else {
    run_conv_in_place(index);
  }
  if (padded(o)) {
    for (size_t w = 0; w < count_; ++w) keep_history(index, w);
  }
}

// All blocks in one product, so that they share each read of the weights.
void Stage::run_conv_in_place(int index) {
  const Op& o = op(index);
  const bool transposed = o.kind == OpKind::kConvTranspose;
  const int64_t left = padded(o) ? history_rows(o) : 0;
  parts_.clear();
  for (size_t w = 0; w < count_; ++w) {
    GemmPart part = outputs(index, w);
    part.a = body(layout_.plan(index).input, w) - left * o.in_channels;
    part.m = transposed ? rows(o.input, w) : rows(index + 1, w);
    parts_.push_back(part);
  }
  multiply(o.weight, (transposed ? 1 : o.stride) * o.in_channels, o.weight.bias.data());
}

void Stage::multiply(const Matrix& weight, int64_t a_stride, const float* bias, bool backward) {
  GemmArgs g = {};
  g.parts = parts_.data();
  g.part_count = static_cast<int64_t>(parts_.size());
  g.a_stride = a_stride;
  g.panels = weight.panels;
  g.panels16 = weight.panels16;
  g.n = weight.n;
  g.k = weight.k;
  g.bias = bias;
  g.backward = backward;
  kernels().gemm(g);
}

// The product of one block in pieces, its moments taken while a piece is in cache; then group norm,
// trimming and addition in one pass.
void Stage::run_conv_then_finish(int index, size_t w) {
  const Op& o = op(index);
  const bool transposed = o.kind == OpKind::kConvTranspose;
  const bool normed_here = !o.norm.scale.empty();
  const int64_t width = o.out_channels;
  const int64_t m = transposed ? rows(o.input, w) + 1 : rows(index + 1, w);
  const int64_t left = padded(o) ? history_rows(o) : 0;
  const int64_t a_stride = (transposed ? 1 : o.stride) * o.in_channels;
  const float* a = body(layout_.plan(index).input, w) - left * o.in_channels;
  const GemmPart to = outputs(index, w);
  float* product = to.out != nullptr ? to.out : to.elu;
  if (transposed) {
    product = product_.room(static_cast<size_t>(m * o.weight.n));
  }
  moments_.clear();
  const int64_t step = std::max<int64_t>(kPiece / o.weight.n / 6 * 6, 6);
  int64_t reduced = 0;
  for (int64_t i = 0; i < m; i += step) {
    const int64_t count = std::min(step, m - i);
    parts_.assign(1, {a + i * a_stride, nullptr, product + i * o.weight.n, nullptr, count});
    multiply(o.weight, a_stride, o.weight.bias.data());
    if (!normed_here) continue;
    const int64_t ready = (i + count) * o.weight.n;
    while (ready - reduced >= kReductionBlock || (i + count == m && reduced < ready)) {
      const int64_t n = std::min(ready - reduced, kReductionBlock);
      moments_.add(product + reduced, n);
      reduced += n;
    }
  }
  const int64_t out_rows = rows(index + 1, w);
  const float* from = product + o.trim_left * width;
  if (!normed_here) return kernels().activate(from, to.add, to.out, to.elu, out_rows * width);
  Normed& norm = normed(index, w);
  const float inverse = 1.0f / std::sqrt(moments_.variance() + o.norm.eps);
  norm.mean = moments_.mean();
  norm.scale.resize(static_cast<size_t>(width));
  for (size_t c = 0; c < norm.scale.size(); ++c) norm.scale[c] = inverse * o.norm.scale[c];
  if (deferred_[static_cast<size_t>(index - first_)]) return;
  const bool adds_product = o.add > first_ && deferred_[static_cast<size_t>(o.add - 1 - first_)];
  const NormTerm add =
      adds_product ? term(o.add - 1, w, to.add) : NormTerm{to.add, 0.0f, nullptr, nullptr};
  kernels().normalize(term(index, w, from), add, out_rows, width, to.out, to.elu);
}

NormTerm Stage::term(int index, size_t w, const float* x) {
  const Normed& norm = normed(index, w);
  return {x, norm.mean, norm.scale.data(), op(index).norm.offset.data()};
}

}  // namespace encodec_fast
