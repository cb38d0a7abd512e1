#include "engine/stage.h"

#include <algorithm>
#include <chrono>

#include "dispatch.h"

namespace encodec_fast {

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
  lane.ends.clear();
  for (std::vector<float>& rows : lane.history) rows.clear();
  for (std::vector<float>& values : lane.state) values.clear();
}

void Stage::profile(bool on) {
  timings_.clear();
  if (on) timings_.resize(static_cast<size_t>(end_ - first_));
}

float* Stage::state(int index, size_t w) {
  std::vector<std::vector<float>>& states = lane(w).state;
  states.resize(static_cast<size_t>(end_ - first_));
  std::vector<float>& values = states[static_cast<size_t>(index - first_)];
  values.resize(static_cast<size_t>(2 * op(index).out_channels));
  return values.data();
}

// The rows of all values after a lane's next block.
const std::vector<int64_t>& Stage::ends_after(const Lane& lane, int64_t rows, bool last) {
  ends_.assign(1, (lane.ends.empty() ? 0 : lane.ends.front()) + rows);
  const auto end = [&](int value) { return ends_[static_cast<size_t>(value - first_)]; };
  for (int i = first_; i < end_; ++i) {
    const Op& o = op(i);
    ends_.push_back(result_rows(o, end(o.input), o.add < 0 ? 0 : end(o.add), last));
  }
  return ends_;
}

int64_t Stage::output_rows(int64_t index, int64_t rows, bool last) {
  const Lane& lane = lane_[static_cast<size_t>(index)];
  return ends_after(lane, rows, last).back() - (lane.ends.empty() ? 0 : lane.ends.back());
}

void Stage::count_rows() {
  const size_t values = static_cast<size_t>(end_ - first_) + 1;
  before_.resize(values * count_);
  rows_.resize(values * count_);
  for (size_t w = 0; w < count_; ++w) {
    std::vector<int64_t>& ends = lane(w).ends;
    ends_after(lane(w), (*work_)[w].rows, last(w));
    ends.resize(values);
    for (int value = first_; value <= end_; ++value) {
      int64_t& end = ends[static_cast<size_t>(value - first_)];
      before(value, w) = end;
      end = ends_[static_cast<size_t>(value - first_)];
      rows(value, w) = end - before(value, w);
    }
  }
}

void Stage::run(const std::vector<Work>& work) {
  work_ = &work;
  count_ = work.size();
  count_rows();
  body_.assign(layout_.forms().size() * count_, nullptr);
  front_.resize(body_.size());
  normed_.resize(static_cast<size_t>(end_ - first_) * count_);
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
      timing.macs += product_rows(i, w) * (o.weight.k * o.weight.n + o.recurrent.k * o.recurrent.n);
    }
  }
  for (const Work& block : work) {
    lane_[static_cast<size_t>(block.lane)].started = true;
    if (block.last) reset(block.lane);
  }
}

// Lays out the forms of a value: per block the last rows of the blocks before, or room for the
// padding at the start, its rows, and room for the padding at the end.
void Stage::make_room(int value) {
  const int64_t width = graph_.channels(value);
  for (size_t f = 0; f < layout_.forms().size(); ++f) {
    const Layout::Form& form = layout_.forms()[f];
    if (form.value != value) continue;
    const auto size_of = [&](size_t w) {
      const int64_t end = before(value, w) + rows(value, w);
      const int64_t right = form.reader < 0 ? 0 : end_padding(op(form.reader), end);
      return (front_[place(static_cast<int>(f), w)] + rows(value, w) + right) * width;
    };
    int64_t total = 0;
    for (size_t w = 0; w < count_; ++w) {
      lane(w).history.resize(layout_.forms().size());
      int64_t& front = front_[place(static_cast<int>(f), w)];
      front = static_cast<int64_t>(lane(w).history[f].size()) / width;
      if (!lane(w).started && form.reader >= 0) front = start_padding(op(form.reader));
      total += size_of(w);
    }
    float* at = buffers_[form.slot].room(static_cast<size_t>(total));
    for (size_t w = 0; w < count_; ++w) {
      const std::vector<float>& kept = lane(w).history[f];
      std::copy(kept.begin(), kept.end(), at);
      body_[place(static_cast<int>(f), w)] = at + front_[place(static_cast<int>(f), w)] * width;
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

const float* Stage::input(int index, size_t w) {
  const Op& o = op(index);
  const int64_t begin = before(o.input, w);
  const int64_t row = next_row(o, begin, before(index + 1, w)) - begin;
  return body(layout_.plan(index).input, w) + row * o.in_channels;
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
  if (op(index).add >= 0) {
    const int64_t row = before(index + 1, w) - before(op(index).add, w);
    part.add = body(layout_.plan(index).add, w) + row * op(index).out_channels;
  }
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

// Keeps the rows that a later block needs: windows of results that are to come, and what a mirrored
// end reaches into.
void Stage::keep(int index, size_t w) {
  if (last(w)) return;
  const Layout::Form& form = layout_.form(index);
  const int64_t begin = before(form.value, w);
  const int64_t end = begin + rows(form.value, w);
  const auto results = [&](int i) { return before(i + 1, w) + rows(i + 1, w); };
  int64_t from = end;
  for (const int i : form.adds) from = std::min(from, results(i));
  for (const int i : form.inputs) {
    const Op& o = op(i);
    from = std::min(from, next_row(o, end, results(i)));
    if (padded(o) && o.reflect) from = std::min(from, end - o.pad_right - o.stride);
  }
  from = std::max(from, begin - front_[place(index, w)]);
  const int64_t width = graph_.channels(form.value);
  const float* const first = body(index, w);
  lane(w).history[static_cast<size_t>(index)].assign(first + (from - begin) * width,
                                                     first + (end - begin) * width);
}

void Stage::run_op(int index) {
  make_room(index + 1);
  if (op(index).kind == OpKind::kLstm) {
    run_lstm(index);
  } else {
    run_conv(index);
  }
  for (size_t w = 0; w < count_; ++w) {
    copy_to_other_forms(index, w);
    for (const int form : layout_.plan(index).done) keep(form, w);
  }
}

}  // namespace encodec_fast
