// One distribution for many symbols: intervals, and the way back from a target.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "kernels/cdf.h"

namespace encodec_fast {

class CdfTable {
 public:
  // starts: the n + 1 sums of interval widths, from 0. Throws std::invalid_argument unless n is in
  // kMinSymbols..kMaxSymbols, each width at least 1 and the last sum at most kCdfTotal.
  CdfTable(const uint32_t* starts, int64_t n);

  int64_t size() const { return static_cast<int64_t>(starts_.size()) - 1; }

  // symbol: below size().
  Interval interval(int64_t symbol) const {
    const auto s = static_cast<size_t>(symbol);
    return {starts_[s], starts_[s + 1] - starts_[s]};
  }

  // The symbol whose interval holds `target`, -1 if none does.
  int64_t find(uint32_t target) const {
    if (target >= starts_.back()) return -1;
    const uint32_t bucket = target >> kBucketBits;
    uint32_t first = first_[bucket];
    uint32_t last = first_[bucket + 1];
    while (first < last) {
      const uint32_t middle = (first + last + 1) / 2;
      if (starts_[middle] <= target) {
        first = middle;
      } else {
        last = middle - 1;
      }
    }
    return first;
  }

 private:
  static constexpr int kBucketBits = 12;  // 4096 buckets: about one symbol in each

  std::vector<uint32_t> starts_;
  // By bucket, the symbol that holds its first target (the last symbol beyond the end).
  std::vector<uint16_t> first_;
};

// Throws what the constructor throws.
void check_starts(const uint32_t* starts, int64_t n);

}  // namespace encodec_fast
