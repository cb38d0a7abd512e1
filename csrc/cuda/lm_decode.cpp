// Decoding: steps of all streams that are left, without a wait of the host between them.
#include <algorithm>
#include <cstring>
#include <new>

#include "cuda/lm_coder.h"

namespace encodec_fast::cuda {
namespace {

// Steps between two looks at what has ended or is damaged: hostile data costs no more than these,
// whatever the length that it claims.
constexpr int64_t kStretch = 64;

size_t size_of(int64_t count) { return static_cast<size_t>(count); }

// What a stretch takes to the device and back, in one array: runs and readers of each stream, and
// its codes, those of the step before first.
struct Layout {
  Layout(int64_t rows, int64_t n_q)
      : readers(Staging::room(size_of(rows) * sizeof(LmRun))),
        codes(readers + Staging::room(size_of(rows) * sizeof(LmReader))),
        each((kStretch + 1) * n_q),
        bytes(codes + size_of(rows * each) * sizeof(uint16_t)) {}
  LmRun* runs_in(uint8_t* base) const { return reinterpret_cast<LmRun*>(base); }
  LmReader* readers_in(uint8_t* base) const { return reinterpret_cast<LmReader*>(base + readers); }
  uint16_t* codes_in(uint8_t* base, int64_t row) const {
    return reinterpret_cast<uint16_t*>(base + codes) + row * each;
  }
  size_t readers, codes;
  int64_t each;  // codes of a stream
  size_t bytes;
};

}  // namespace

// Uploads the bytes of all streams.
std::vector<LmCoder::Reading> LmCoder::open(std::vector<LmPayload>& streams) {
  state_.open(lanes_of(streams));
  size_t bytes = 0;
  for (const LmPayload& s : streams) bytes += Staging::room(s.data.size());
  staging_.begin(bytes);
  std::vector<Reading> readings;
  readings.reserve(streams.size());
  for (LmPayload& s : streams) {
    readings.push_back({&s, RangeDecoder(s.data.data(), s.data.size()), 0});
    readings.back().decoder.move_to(staging_.add(s.data.data(), s.data.size()));
  }
  staging_.upload(queue_);
  return readings;
}

// One step of `rows` streams.
void LmCoder::record(int64_t rows) {
  tape_.clear();
  tape_rows_ = 0;
  state_.reserve(rows, queue_);
  const Layout layout(rows, n_q());
  stretch_.reserve(layout.bytes);
  stretch_of_host_.reserve(layout.bytes);
  LmRun* const runs = layout.runs_in(stretch_.bytes());
  LmReader* const readers = layout.readers_in(stretch_.bytes());
  const auto step = [this, rows, runs, readers](cudaStream_t stream) {
    state_.run({runs, rows, rows}, 1, stream);
    read_codes(state_.distributions(rows), runs, readers, stream);
  };
  tape_.add(step, state_.kernels() + 1);
  tape_rows_ = rows;
  tape_version_ = state_.version();
}

// What the first `rows` streams start the stretch with; the tape's other rows rest.
void LmCoder::fill(const std::vector<Reading>& readings, int64_t rows) {
  const Layout layout(tape_rows_, n_q());
  uint8_t* const base = stretch_of_host_.bytes();
  LmRun* const runs = layout.runs_in(base);
  for (int64_t i = 0; i < tape_rows_; ++i) {
    if (i >= rows) {
      new (runs + i) LmRun{nullptr, nullptr, 1, 1, 1, 0, i};
      continue;
    }
    const Reading& r = readings[size_of(i)];
    const int64_t lane = r.payload->lane;
    const int64_t entry = state_.steps(lane) + 1;
    uint16_t* const codes = layout.codes_in(stretch_.bytes(), i);
    new (runs + i) LmRun{state_.cache(lane), codes, entry, entry, entry + 1, 1, i};
    const int64_t left = std::min(kStretch, r.payload->steps - r.done);
    new (layout.readers_in(base) + i) LmReader{r.decoder, left, false};
    const uint32_t* const previous = lanes_.previous(lane);
    uint16_t* const first = layout.codes_in(base, i);
    for (int64_t k = 0; k < n_q(); ++k) first[k] = static_cast<uint16_t>(previous[k] - 1);
  }
}

// What came of it.
void LmCoder::take(std::vector<Reading>& readings, int64_t rows) {
  const Layout layout(tape_rows_, n_q());
  uint8_t* const base = stretch_of_host_.bytes();
  for (int64_t i = 0; i < rows; ++i) {
    Reading& r = readings[size_of(i)];
    const LmReader& reader = layout.readers_in(base)[i];
    r.payload->damaged = reader.damaged;
    r.decoder = reader.decoder;
    if (reader.damaged) continue;
    const int64_t lane = r.payload->lane;
    const int64_t steps = std::min(kStretch, r.payload->steps - r.done);
    const uint16_t* const codes = layout.codes_in(base, i) + n_q();
    r.payload->codes.insert(r.payload->codes.end(), codes, codes + steps * n_q());
    for (int64_t k = 0; k < n_q(); ++k)
      lanes_.previous(lane)[k] = uint32_t{codes[(steps - 1) * n_q() + k]} + 1;
    state_.advance(lane, steps);
    r.done += steps;
  }
}

int64_t LmCoder::longest(const std::vector<Reading>& readings, int64_t rows) const {
  int64_t most = 0;
  for (int64_t i = 0; i < rows; ++i) {
    const Reading& r = readings[size_of(i)];
    most = std::max(most, std::min(kStretch, r.payload->steps - r.done));
  }
  return most;
}

void LmCoder::decode(std::vector<LmPayload>& streams) {
  lanes_.open(lanes_of(streams));
  queue_.begin();
  std::vector<Reading> readings = open(streams);
  for (;;) {
    const auto ended = [](const Reading& r) {
      const bool done = r.payload->steps == r.done;
      r.payload->damaged = r.payload->damaged || (done && !r.decoder.complete());
      return r.payload->damaged || done;
    };
    readings.erase(std::remove_if(readings.begin(), readings.end(), ended), readings.end());
    if (readings.empty()) break;
    // Streams beyond these begin as others end.
    const int64_t rows =
        std::min<int64_t>(static_cast<int64_t>(readings.size()), state_.most_rows());
    const bool fits = rows <= tape_rows_ && 2 * rows >= tape_rows_;
    if (!fits || tape_version_ != state_.version()) record(rows);
    fill(readings, rows);
    const size_t bytes = Layout(tape_rows_, n_q()).bytes;
    queue_.upload(stretch_.bytes(), stretch_of_host_.bytes(), bytes);
    for (int64_t step = longest(readings, rows); step > 0; --step) tape_.play(queue_);
    queue_.download(stretch_of_host_.bytes(), stretch_.bytes(), bytes);
    queue_.finish();
    take(readings, rows);
  }
  queue_.finish();
  for (LmPayload& s : streams) {
    if (s.damaged) {
      std::vector<uint16_t>().swap(s.codes);
    } else {
      lanes_.close(s.lane);
    }
  }
}

}  // namespace encodec_fast::cuda
