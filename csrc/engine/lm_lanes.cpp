#include "engine/lm_lanes.h"

#include <algorithm>
#include <string>

#include "engine/language_model.h"
#include "engine/require.h"

namespace encodec_fast {
namespace {

constexpr int64_t kMaxLanes = 65536;

size_t size_of(int64_t count) { return static_cast<size_t>(count); }

}  // namespace

LmLanes::LmLanes(const LanguageModel& model, int64_t n_q, int64_t lanes) : n_q_(n_q) {
  require_in("n_q", n_q, 1, static_cast<int64_t>(model.books().size()));
  require_in("batch", lanes, 1, kMaxLanes);
  previous_.assign(size_of(lanes * n_q), 0);
  failed_.assign(size_of(lanes), false);
}

void LmLanes::check(const std::vector<int64_t>& lanes) const {
  for (const int64_t lane : lanes) require_in("streams", lane, 0, count() - 1);
}

void LmLanes::open(const std::vector<int64_t>& lanes) {
  std::vector<bool> named(failed_.size(), false);
  for (const int64_t lane : lanes) {
    require_in("streams", lane, 0, count() - 1);
    require(!named[size_of(lane)], "streams: " + std::to_string(lane) + " is named twice");
    require(!failed_[size_of(lane)], "streams: the last call for " + std::to_string(lane) +
                                         " failed; it must be reset before the next");
    named[size_of(lane)] = true;
  }
  for (const int64_t lane : lanes) failed_[size_of(lane)] = true;
}

void LmLanes::reset(int64_t lane) {
  std::fill_n(previous(lane), n_q_, 0);
  failed_[size_of(lane)] = false;
}

}  // namespace encodec_fast
