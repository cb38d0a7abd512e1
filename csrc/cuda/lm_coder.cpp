#include "cuda/lm_coder.h"

#include <algorithm>

#include "engine/require.h"

namespace encodec_fast::cuda {
namespace {

size_t size_of(int64_t count) { return static_cast<size_t>(count); }

int64_t longest_block(const LmPlan& plan) {
  int64_t rows = 0;
  for (const LmBlock& block : plan.blocks) rows = std::max(rows, block.rows);
  return rows;
}

template <typename T>
size_t room_of(const std::vector<T>& rows) {
  return Staging::room(rows.size() * sizeof(T));
}

}  // namespace

LmCoder::LmCoder(std::shared_ptr<const DeviceLanguageModel> model, int64_t n_q, int64_t lanes)
    : model_(std::move(model)),
      lanes_(model_->model(), n_q, lanes),
      queue_(model_->device()),
      state_(model_, n_q, lanes) {}

void LmCoder::reset(const std::vector<int64_t>& lanes) {
  lanes_.check(lanes);
  for (const int64_t lane : lanes) {
    state_.reset(lane);
    lanes_.reset(lane);
  }
}

// The codes of the step before the first one, which nobody reads where there is none; then all.
uint16_t* LmCoder::add_codes(const LmCodes& stream) {
  std::vector<uint16_t> codes;
  codes.reserve(stream.codes.size() + size_of(n_q()));
  const uint32_t* const previous = lanes_.previous(stream.lane);
  for (int64_t k = 0; k < n_q(); ++k) codes.push_back(static_cast<uint16_t>(previous[k] - 1));
  codes.insert(codes.end(), stream.codes.begin(), stream.codes.end());
  return staging_.add(codes.data(), codes.size());
}

// Uploads all that the call's blocks read.
LmCoder::Job LmCoder::upload(const std::vector<LmCodes>& streams,
                             const std::vector<RangeWriter>& writers) {
  state_.open(lanes_of(streams));
  size_t bytes = 0;
  for (const LmCodes& s : streams)
    bytes += Staging::room(size_of((s.steps + 1) * n_q()) * sizeof(uint16_t));
  staging_.begin(bytes);
  std::vector<LmSteps> steps;
  steps.reserve(streams.size());
  for (const LmCodes& s : streams)
    steps.push_back({state_.cache(s.lane), add_codes(s), state_.steps(s.lane), s.steps});
  staging_.upload(queue_);
  Job job = {};
  job.plan = plan_blocks(steps, n_q(), state_.most_rows(), state_.run_rows());
  const int good = 0;
  tables_.begin(room_of(job.plan.runs) + room_of(job.plan.spans) + room_of(writers) +
                Staging::room(sizeof good));
  job.runs = tables_.add(job.plan.runs.data(), job.plan.runs.size());
  job.spans = tables_.add(job.plan.spans.data(), job.plan.spans.size());
  job.writers = tables_.add(writers.data(), writers.size());
  job.bad = tables_.add(&good, 1);
  tables_.upload(queue_);
  state_.reserve(longest_block(job.plan), queue_);
  return job;
}

// Each has room for the most that its symbols can take.
std::vector<RangeWriter> LmCoder::make_writers(const std::vector<LmCodes>& streams) {
  std::vector<size_t> places;
  size_t bytes = 0;
  for (const LmCodes& s : streams) {
    places.push_back(bytes);
    bytes += s.codes.size() * RangeWriter::kMostOfSymbol + RangeWriter::kMostOfEnd;
  }
  bytes_.reserve(bytes);
  std::vector<RangeWriter> writers(streams.size());
  for (size_t i = 0; i < writers.size(); ++i) writers[i].bytes = bytes_.bytes() + places[i];
  return writers;
}

// The call has succeeded.
void LmCoder::finish(const std::vector<LmCodes>& streams) {
  for (const LmCodes& s : streams) {
    state_.advance(s.lane, s.steps);
    if (s.steps > 0) {
      const uint16_t* last = s.codes.data() + (s.steps - 1) * n_q();
      for (int64_t k = 0; k < n_q(); ++k) lanes_.previous(s.lane)[k] = uint32_t{last[k]} + 1;
    }
    lanes_.close(s.lane);
  }
}

// What has been written, close together and in one download: most of the room is empty.
std::vector<std::vector<uint8_t>> LmCoder::gather(const std::vector<RangeWriter>& writers) {
  const auto words_of = [](const RangeWriter& w) { return static_cast<int64_t>(w.used + 3) / 4; };
  int64_t words = 0;
  for (const RangeWriter& w : writers) words += words_of(w);
  packed_.reserve(size_of(words) * sizeof(float));
  result_.reserve(size_of(words) * sizeof(float));
  std::vector<Copy> copies;
  float* to = packed_.floats();
  int64_t longest = 0;
  for (const RangeWriter& w : writers) {
    copies.push_back({reinterpret_cast<const float*>(w.bytes), to, words_of(w)});
    to += words_of(w);
    longest = std::max(longest, words_of(w));
  }
  tables_.begin(room_of(copies));
  const Copy* const table = tables_.add(copies.data(), copies.size());
  tables_.upload(queue_);
  copy(table, static_cast<int64_t>(copies.size()), longest, queue_.stream());
  queue_.download(result_.bytes(), packed_.bytes(), size_of(words) * sizeof(float));
  queue_.finish();
  std::vector<std::vector<uint8_t>> bytes;
  const uint8_t* from = result_.bytes();
  for (const RangeWriter& w : writers) {
    bytes.emplace_back(from, from + w.used);
    from += words_of(w) * 4;
  }
  return bytes;
}

std::vector<std::vector<uint8_t>> LmCoder::encode(const std::vector<LmCodes>& streams) {
  lanes_.open(lanes_of(streams));
  if (streams.empty()) return {};
  queue_.begin();
  std::vector<RangeWriter> writers = make_writers(streams);
  const Job job = upload(streams, writers);
  intervals_.reserve(size_of(longest_block(job.plan) * n_q()) * sizeof(Interval) + 1);
  auto* const intervals = reinterpret_cast<Interval*>(intervals_.bytes());
  for (const LmBlock& b : job.plan.blocks) {
    const LmRuns block = job.block(b);
    state_.run(block, state_.run_rows(), queue_.stream());
    find_intervals(state_.distributions(b.rows), block, intervals, job.bad, queue_.stream());
    write_codes(job.spans + b.span, static_cast<int64_t>(b.spans), intervals, n_q(), job.writers,
                queue_.stream());
  }
  flush(job.writers, static_cast<int64_t>(writers.size()), queue_.stream());
  int bad = 0;
  queue_.download(writers.data(), job.writers, writers.size() * sizeof(RangeWriter));
  queue_.download(&bad, job.bad, sizeof bad);
  queue_.finish();
  require(bad == 0, "language model: its probabilities are not finite");
  std::vector<std::vector<uint8_t>> bytes = gather(writers);
  finish(streams);
  return bytes;
}

void LmCoder::probabilities(const std::vector<LmCodes>& streams, const std::vector<float*>& out) {
  lanes_.open(lanes_of(streams));
  queue_.begin();
  const Job job = upload(streams, {});
  const int64_t padded = model_->padded(), entries = model().entries();
  for (const LmBlock& b : job.plan.blocks) {
    state_.run(job.block(b), state_.run_rows(), queue_.stream());
    const size_t bytes = size_of(b.rows * n_q() * padded) * sizeof(float);
    result_.reserve(bytes);
    queue_.download(result_.bytes(), state_.distributions(b.rows).p, bytes);
    queue_.finish();
    for (size_t i = b.span; i < b.span + b.spans; ++i) {
      const LmSpan& span = job.plan.spans[i];
      const float* from = result_.floats() + span.first * n_q() * padded;
      float* to = out[size_of(span.stream)] + span.step * n_q() * entries;
      for (int64_t k = 0; k < span.rows * n_q(); ++k, from += padded)
        to = std::copy_n(from, entries, to);
    }
  }
  finish(streams);
}

}  // namespace encodec_fast::cuda
