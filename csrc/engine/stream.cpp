#include "engine/stream.h"

#include <algorithm>
#include <stdexcept>
#include <string>
#include <utility>

namespace encodec_fast {
namespace {

// Bytes between the operations of a stage that a piece may occupy: what the second cache level
// holds, or as much as the weights, which are read once per piece, if these are more.
constexpr int64_t kPieceBytes = 256 << 10;

// The values at which the graph is cut: nothing else is read beyond them, and the rate changes
// there.
std::vector<int> cuts(const Graph& graph) {
  const std::vector<Op>& ops = graph.ops();
  const int count = static_cast<int>(ops.size());
  std::vector<int> found = {0};
  int reach = graph.last_use(0);
  for (int value = 1; value < count; ++value) {
    const Op& before = ops[static_cast<size_t>(value) - 1];
    const Op& behind = ops[static_cast<size_t>(value)];
    const bool rate_changes = (before.kind == OpKind::kConv && before.stride > 1) ||
                              behind.kind == OpKind::kConvTranspose;
    if (rate_changes && reach < value) found.push_back(value);
    reach = std::max(reach, graph.last_use(value));
  }
  found.push_back(count);
  return found;
}

}  // namespace

Stream::Stream(const Graph& graph, int64_t lanes, Start start) : graph_(graph), start_(start) {
  check_lanes(graph, lanes, start);
  const std::vector<int> at = cuts(graph);
  for (size_t i = 0; i + 1 < at.size(); ++i)
    stages_.emplace_back(graph, at[i], at[i + 1], lanes, start);
  values_.resize(at.size());
  started_.resize(static_cast<size_t>(lanes));
  failed_.resize(static_cast<size_t>(lanes));
  rows_.resize(static_cast<size_t>(lanes));
}

void Stream::reset() {
  for (int64_t lane = 0; lane < lanes(); ++lane) reset(lane);
}

void Stream::reset(int64_t lane) {
  started_.at(static_cast<size_t>(lane)) = false;
  failed_[static_cast<size_t>(lane)] = false;
  for (Stage& stage : stages_) stage.reset(lane);
}

void Stream::profile(bool on) {
  for (Stage& stage : stages_) stage.profile(on);
}

std::vector<Timing> Stream::timings() const {
  std::vector<Timing> all;
  for (const Stage& stage : stages_)
    all.insert(all.end(), stage.timings().begin(), stage.timings().end());
  return all;
}

float* Stream::input(const std::vector<Block>& blocks) {
  if (blocks.size() != started_.size())
    throw std::invalid_argument("blocks: expected one per stream of the batch");
  for (size_t l = 0; l < blocks.size(); ++l)
    check_block(graph_, start_, blocks[l], started_[l], failed_[l]);
  blocks_ = blocks;
  int64_t total = 0;
  for (size_t l = 0; l < blocks.size(); ++l) total += rows_[l] = blocks[l].rows;
  return values_[0].room(static_cast<size_t>(total * graph_.in_channels()));
}

const float* Stream::run() {
  // Until all of it is done: an exception, of memory say, leaves these lanes half advanced.
  for (size_t l = 0; l < blocks_.size(); ++l)
    failed_[l] = failed_[l] || blocks_[l].rows > 0 || blocks_[l].last;
  for (size_t i = 0; i < stages_.size(); ++i) run_stage(i);
  for (size_t l = 0; l < blocks_.size(); ++l) {
    if (blocks_[l].rows > 0 || blocks_[l].last) failed_[l] = false;
    if (blocks_[l].rows > 0) started_[l] = !blocks_[l].last;
    if (blocks_[l].last && blocks_[l].rows == 0) reset(static_cast<int64_t>(l));
  }
  return values_.back().data();
}

double Stream::piece_bytes(int64_t rows) const {
  double most = 0.0;
  for (const Stage& stage : stages_) {
    const Layout& layout = stage.layout();
    const double in = static_cast<double>(rows) * stage.rate();
    const auto least = static_cast<double>(std::max(layout.start_rows(), layout.down()));
    most = std::max(most, std::max(in, least) * layout.row_bytes() + layout.padding_bytes());
  }
  return most;
}

int64_t Stream::piece_rows(const Stage& stage) const {
  const Layout& layout = stage.layout();
  const auto bytes = static_cast<double>(std::max(kPieceBytes, layout.weight_bytes()));
  const auto rows = static_cast<int64_t>(bytes / layout.row_bytes());
  return std::max(rows / layout.down() * layout.down(), layout.down());
}

// A piece takes rows of one lane after the other until it is full. A model that needs its whole
// segment at once takes whole lanes.
void Stream::run_stage(size_t index) {
  Stage& stage = stages_[index];
  const float* in = values_[index].data();
  std::vector<int64_t> done(rows_.size());
  int64_t total = 0;
  for (size_t l = 0; l < rows_.size(); ++l) {
    done[l] = stage.output_rows(static_cast<int64_t>(l), rows_[l], blocks_[l].last);
    total += done[l];
  }
  float* out = values_[index + 1].room(static_cast<size_t>(total * stage.out_channels()));
  const int64_t most = piece_rows(stage);
  int64_t room = most;
  work_.clear();
  const auto run_piece = [&] {
    if (!work_.empty()) stage.run(work_);
    work_.clear();
    room = most;
  };
  for (size_t l = 0; l < rows_.size(); ++l) {
    const int64_t lane = static_cast<int64_t>(l);
    // A stream that looks ahead has rows to give when it ends, even without a new one.
    const bool rest = blocks_[l].last && graph_.delay() > 0 && (started_[l] || blocks_[l].rows > 0);
    int64_t left = rows_[l];
    for (bool more = left > 0 || rest; more; more = left > 0) {
      const int64_t least = graph_.streams() ? stage.start_rows(lane) : left;
      if (!work_.empty() && room < std::min(least, left)) run_piece();
      int64_t take = std::max(room / stage.layout().down() * stage.layout().down(), least);
      if (take >= left) take = left;
      const bool last = blocks_[l].last && take == left;
      work_.push_back({lane, in, out, take, last});
      in += take * stage.in_channels();
      out += stage.output_rows(lane, take, last) * stage.out_channels();
      left -= take;
      room -= take;
      if (left > 0) run_piece();
    }
  }
  run_piece();
  rows_ = std::move(done);
}

}  // namespace encodec_fast
