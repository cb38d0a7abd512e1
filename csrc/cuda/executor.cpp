#include "cuda/executor.h"

#include <algorithm>

#include "engine/require.h"

namespace encodec_fast::cuda {
namespace {

constexpr size_t kFloat = sizeof(float);

size_t floats(int64_t count) { return static_cast<size_t>(count) * kFloat; }

template <typename T>
int64_t longest_of(const std::vector<T>& parts) {
  int64_t most = 0;
  for (const T& part : parts) most = std::max(most, part.count);
  return most;
}

}  // namespace

Executor::Executor(std::shared_ptr<const DeviceGraph> graph, int64_t lanes, Start start,
                   Queue& queue)
    : graph_(std::move(graph)),
      start_(start),
      queue_(queue),
      layout_(graph_->graph(), 0, ops()),
      geometry_(graph_->graph(), layout_, start) {
  check_lanes(graph_->graph(), lanes, start);
  lane_.resize(static_cast<size_t>(lanes), fresh_);
  failed_.resize(lane_.size());
  output_rows_.resize(lane_.size());
  slots_.resize(layout_.slots());
  history_.resize(layout_.forms().size());
  capacity_.resize(layout_.forms().size());
  states_.resize(static_cast<size_t>(ops()));
  for (int i = 0; i < ops(); ++i) {
    if (op(i).kind != OpKind::kLstm) continue;
    State& state = states_[static_cast<size_t>(i)];
    state.hidden.reserve(floats(lanes * op(i).out_channels));
    state.cell.reserve(floats(lanes * op(i).out_channels));
  }
}

void Executor::reset() {
  for (int64_t lane = 0; lane < lanes(); ++lane) reset(lane);
}

// What the device holds of a stream needs no clearing: a fresh block reads none of it.
void Executor::reset(int64_t lane) {
  lane_.at(static_cast<size_t>(lane)) = fresh_;
  failed_[static_cast<size_t>(lane)] = false;
}

float* Executor::input(const std::vector<Block>& blocks) {
  require(blocks.size() == lane_.size(), "blocks: expected one per stream of the batch");
  for (size_t l = 0; l < blocks.size(); ++l)
    check_block(graph(), start_, blocks[l], lane_[l]->started, failed_[l]);
  std::vector<LaneBlock> work;
  work.reserve(blocks.size());
  std::fill(output_rows_.begin(), output_rows_.end(), 0);
  int64_t total = 0;
  for (size_t l = 0; l < blocks.size(); ++l) {
    const Block& b = blocks[l];
    const bool rest = b.last && graph().delay() > 0 && lane_[l]->started;
    if (b.rows == 0 && !rest) {
      if (b.last) reset(static_cast<int64_t>(l));
      continue;
    }
    failed_[l] = true;
    work.push_back(advance(l, b));
    output_rows_[l] = work.back().rows->rows.back();
    total += b.rows;
  }
  if (!recorded_ || !(work == blocks_)) {
    recorded_ = false;
    blocks_ = std::move(work);
    input_.reserve(floats(total * graph().in_channels()) + kFloat);
    lay_out();
    make_history();
    size_scratch();
    record();
    recorded_ = true;
  }
  return input_.floats();
}

// Streams in step are at the same place: what is known of one serves the others, and the next call.
Executor::LaneBlock Executor::advance(size_t lane, const Block& block) {
  std::shared_ptr<const LaneRows>& now = lane_[lane];
  const auto known = [&] {
    return advance_.rows != nullptr && block.rows == advance_.block.rows &&
           block.last == advance_.block.last &&
           (now == advance_.before || *now == *advance_.before);
  };
  if (!known()) {
    LaneRows after = *now;
    auto rows = std::make_shared<const BlockRows>(geometry_.advance(after, block));
    const bool stays = after == *now;
    advance_ = {block, now, stays ? now : std::make_shared<const LaneRows>(std::move(after)),
                std::move(rows)};
  }
  now = advance_.after;
  return {static_cast<int64_t>(lane), advance_.rows};
}

void Executor::run() {
  if (!blocks_.empty()) tape_.play(queue_);
}

void Executor::finished() {
  for (const LaneBlock& b : blocks_) failed_[static_cast<size_t>(b.lane)] = false;
}

// Per form and block: rows kept of the blocks before, or padding; its rows; padding behind.
void Executor::lay_out() {
  const size_t forms = layout_.forms().size();
  std::vector<int64_t> need(slots_.size());
  std::vector<std::vector<int64_t>> at(forms);
  for (size_t f = 0; f < forms; ++f) {
    const Layout::Form& form = layout_.forms()[f];
    const int64_t width = graph().channels(form.value);
    int64_t total = 0;
    for (size_t w = 0; w < count(); ++w) {
      const int64_t front = block(w).front[f];
      at[f].push_back((total + front) * width);
      total += front + rows(form.value, w) + block(w).behind[f];
    }
    need[form.slot] = std::max(need[form.slot], total * width);
  }
  for (size_t s = 0; s < slots_.size(); ++s) slots_[s].reserve(floats(need[s]) + kFloat);
  body_.clear();
  for (size_t f = 0; f < forms; ++f) {
    for (const int64_t offset : at[f])
      body_.push_back(slots_[layout_.forms()[f].slot].floats() + offset);
  }
  int64_t results = 0;
  result_.clear();
  for (const LaneBlock& b : blocks_) {
    result_.push_back(results * graph().out_channels());
    results += b.rows->rows.back();
  }
  output_.reserve(floats(results * graph().out_channels()) + kFloat);
}

// Room for what these blocks keep; what is there stays.
void Executor::make_history() {
  for (size_t f = 0; f < history_.size(); ++f) {
    const int value = layout_.forms()[f].value;
    int64_t most = 0;
    for (size_t w = 0; w < count(); ++w)
      most = std::max(most, (rows(value, w) - block(w).keep[f]) * graph().channels(value));
    if (most <= capacity_[f]) continue;
    DeviceMemory grown;
    grown.reserve(floats(lanes() * most));
    if (capacity_[f] > 0) {
      check(
          cudaMemcpy2DAsync(grown.bytes(), floats(most), history_[f].bytes(), floats(capacity_[f]),
                            floats(capacity_[f]), static_cast<size_t>(lanes()),
                            cudaMemcpyDeviceToDevice, queue_.stream()),
          "copying history");
      queue_.finish();  // before the old memory goes
    }
    history_[f] = std::move(grown);
    capacity_[f] = most;
  }
}

float* Executor::history(size_t form, size_t w) const {
  return history_[form].floats() + blocks_[w].lane * capacity_[form];
}

void Executor::record() {
  tape_.clear();
  take_input();
  for (int i = 0; i < ops(); ++i) record_op(i);
}

Executor::Table Executor::table(const std::vector<Copy>& copies) {
  return {tape_.table(copies), static_cast<int64_t>(copies.size()), longest_of(copies)};
}

Executor::Table Executor::table(const std::vector<Elements>& parts) {
  return {tape_.table(parts), static_cast<int64_t>(parts.size()), longest_of(parts)};
}

void Executor::record_copies(const std::vector<Copy>& copies) {
  const Table t = table(copies);
  if (t.longest == 0) return;
  tape_.add([this, t](cudaStream_t stream) {
    copy(tape_.at<Copy>(t.place), t.count, t.longest, stream);
  });
}

void Executor::record_activation(const std::vector<Elements>& parts) {
  const Table t = table(parts);
  if (t.longest == 0) return;
  tape_.add([this, t](cudaStream_t stream) {
    activate(tape_.at<Elements>(t.place), t.count, t.longest, stream);
  });
}

// Where a value goes: to the result, or to its first plain and its first activated form.
Executor::Outputs Executor::outputs(int value, size_t w) const {
  Outputs to = {};
  if (value == ops()) to.out = output_.floats() + result_[w];
  for (size_t f = 0; f < layout_.forms().size(); ++f) {
    const Layout::Form& form = layout_.forms()[f];
    if (form.value != value) continue;
    float*& place = form.elu ? to.elu : to.out;
    if (place == nullptr) place = body(static_cast<int>(f), w);
  }
  return to;
}

void Executor::take_input() {
  std::vector<Copy> before;
  add_history(0, before);
  record_copies(before);
  std::vector<Elements> parts;
  const float* from = input_.floats();
  for (size_t w = 0; w < count(); ++w) {
    const int64_t n = rows(0, w) * graph().in_channels();
    const Outputs to = outputs(0, w);
    parts.push_back({from, nullptr, to.out, to.elu, n});
    from += n;
  }
  record_activation(parts);
  std::vector<Copy> after;
  add_other_forms(0, after);
  record_copies(after);
}

void Executor::add_history(int value, std::vector<Copy>& copies) const {
  for (size_t f = 0; f < layout_.forms().size(); ++f) {
    if (layout_.forms()[f].value != value) continue;
    for (size_t w = 0; w < count(); ++w) {
      const int64_t n = block(w).front[f] * graph().channels(value);
      if (!block(w).fresh && n > 0)
        copies.push_back({history(f, w), body(static_cast<int>(f), w) - n, n});
    }
  }
}

void Executor::add_other_forms(int value, std::vector<Copy>& copies) const {
  for (size_t f = 0; f < layout_.forms().size(); ++f) {
    const Layout::Form& form = layout_.forms()[f];
    if (form.value != value) continue;
    for (size_t w = 0; w < count(); ++w) {
      const Outputs done = outputs(value, w);
      const float* from = form.elu ? done.elu : done.out;
      float* to = body(static_cast<int>(f), w);
      const int64_t n = rows(value, w) * graph().channels(value);
      if (from != to && n > 0) copies.push_back({from, to, n});
    }
  }
}

void Executor::add_kept(const std::vector<int>& forms, std::vector<Copy>& copies) const {
  for (const int form : forms) {
    const size_t f = static_cast<size_t>(form);
    const int value = layout_.forms()[f].value;
    const int64_t width = graph().channels(value);
    for (size_t w = 0; w < count(); ++w) {
      const int64_t from = block(w).keep[f];
      const int64_t n = (rows(value, w) - from) * width;
      if (!block(w).last && n > 0)
        copies.push_back({body(form, w) + from * width, history(f, w), n});
    }
  }
}

}  // namespace encodec_fast::cuda
