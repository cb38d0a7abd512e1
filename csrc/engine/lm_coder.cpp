#include "engine/lm_coder.h"

#include <algorithm>
#include <stdexcept>
#include <string>
#include <utility>

#include "dispatch.h"
#include "engine/float_control.h"
#include "engine/require.h"

namespace encodec_fast {
namespace {

size_t size_of(int64_t count) { return static_cast<size_t>(count); }

}  // namespace

LmCoder::LmCoder(std::shared_ptr<const LanguageModel> model, int64_t n_q, int64_t lanes)
    : model_(std::move(model)), lanes_(*model_, n_q, lanes), state_(*model_, n_q, lanes) {}

void LmCoder::reset(const std::vector<int64_t>& lanes) {
  lanes_.check(lanes);
  for (const int64_t lane : lanes) {
    state_.reset(lane);
    lanes_.reset(lane);
  }
}

void LmCoder::follow(const std::vector<LmCodes>& streams, const Block& block) {
  const int64_t books = n_q();
  std::vector<Part> parts;
  size_t index = 0;  // what comes next: step `first` of streams[index]
  int64_t first = 0;
  for (;;) {
    parts.clear();
    runs_.clear();
    int64_t rows = 0;
    // A stream's steps are taken as far as possible: its keys and values are then read once for
    // many of them.
    while (index < streams.size() && rows < kLmBlockRows) {
      const int64_t steps = std::min(streams[index].steps - first, kLmBlockRows - rows);
      if (steps > 0) {
        parts.push_back({index, first, steps});
        runs_.push_back({streams[index].lane, steps});
      }
      rows += steps;
      first += steps;
      if (first < streams[index].steps) break;
      ++index;
      first = 0;
    }
    if (rows == 0) return;
    uint32_t* to = state_.indices(rows);
    for (const Part& part : parts) {
      const LmCodes& stream = streams[part.index];
      uint32_t* const last = lanes_.previous(stream.lane);
      const uint16_t* codes = stream.codes.data() + part.first * books;
      for (int64_t step = 0; step < part.steps; ++step) {
        to = std::copy_n(last, books, to);
        for (int64_t k = 0; k < books; ++k) last[k] = uint32_t{*codes++} + 1;
      }
    }
    state_.run(runs_);
    block(parts);
  }
}

std::vector<std::vector<uint8_t>> LmCoder::encode(const std::vector<LmCodes>& streams) {
  lanes_.open(lanes_of(streams));
  const FloatControl control;
  const int64_t books = n_q(), entries = model_->entries();
  std::vector<RangeEncoder> encoders(streams.size());
  std::vector<Interval> intervals;
  follow(streams, [&](const std::vector<Part>& parts) {
    int64_t rows = 0;
    for (const Part& part : parts) rows += part.steps;
    intervals.resize(size_of(rows * books));
    for (int64_t k = 0; k < books; ++k) {
      const float* p = state_.probabilities(k);
      Interval* to = intervals.data() + k;
      for (const Part& part : parts) {
        const uint16_t* codes = streams[part.index].codes.data() + part.first * books + k;
        for (int64_t step = 0; step < part.steps; ++step, p += entries, to += books) {
          *to = kernels().cdf_interval(p, entries, codes[step * books]);
          require(to->width > 0, "language model: its probabilities are not finite");
        }
      }
    }
    const Interval* from = intervals.data();
    for (const Part& part : parts) {
      for (int64_t i = 0; i < part.steps * books; ++i) encoders[part.index].encode(*from++);
    }
  });
  std::vector<std::vector<uint8_t>> bytes(streams.size());
  for (size_t i = 0; i < streams.size(); ++i) encoders[i].flush(bytes[i]);
  for (const LmCodes& stream : streams) lanes_.close(stream.lane);
  return bytes;
}

void LmCoder::probabilities(const std::vector<LmCodes>& streams, const std::vector<float*>& out) {
  lanes_.open(lanes_of(streams));
  const FloatControl control;
  const int64_t books = n_q(), entries = model_->entries();
  follow(streams, [&](const std::vector<Part>& parts) {
    for (int64_t k = 0; k < books; ++k) {
      const float* p = state_.probabilities(k);
      for (const Part& part : parts) {
        for (int64_t step = part.first; step < part.first + part.steps; ++step, p += entries)
          std::copy_n(p, entries, out[part.index] + (step * books + k) * entries);
      }
    }
  });
  for (const LmCodes& stream : streams) lanes_.close(stream.lane);
}

void LmCoder::decode(std::vector<LmPayload>& streams) {
  lanes_.open(lanes_of(streams));
  const FloatControl control;
  std::vector<Reading> active;
  active.reserve(streams.size());
  for (LmPayload& s : streams) active.push_back({&s, RangeDecoder(s.data.data(), s.data.size())});
  for (int64_t step = 0;; ++step) {
    const auto ended = [&](const Reading& r) {
      const bool done = r.payload->steps == step;
      r.payload->damaged = r.payload->damaged || (done && !r.decoder.complete());
      return r.payload->damaged || done;
    };
    active.erase(std::remove_if(active.begin(), active.end(), ended), active.end());
    if (active.empty()) break;
    decode_step(active);
  }
  for (LmPayload& stream : streams) {
    if (stream.damaged) {
      std::vector<uint16_t>().swap(stream.codes);
    } else {
      lanes_.close(stream.lane);
    }
  }
}

// One step of every stream; those whose data turns out damaged go on without a meaning.
void LmCoder::decode_step(std::vector<Reading>& active) {
  const int64_t books = n_q(), entries = model_->entries();
  runs_.clear();
  uint32_t* to = state_.indices(static_cast<int64_t>(active.size()));
  for (const Reading& r : active) {
    runs_.push_back({r.payload->lane, 1});
    to = std::copy_n(lanes_.previous(r.payload->lane), books, to);
  }
  state_.run(runs_);
  for (int64_t k = 0; k < books; ++k) {
    const float* p = state_.probabilities(k);
    for (Reading& r : active) {
      Interval interval{};
      const uint32_t target = r.decoder.target();
      const int64_t code = kernels().cdf_find(p, entries, target, &interval);
      p += entries;
      r.payload->damaged = r.payload->damaged || code < 0 || r.decoder.overrun();
      if (r.payload->damaged) continue;
      r.decoder.consume(interval);
      lanes_.previous(r.payload->lane)[k] = static_cast<uint32_t>(code) + 1;
      r.payload->codes.push_back(static_cast<uint16_t>(code));
    }
  }
}

}  // namespace encodec_fast
