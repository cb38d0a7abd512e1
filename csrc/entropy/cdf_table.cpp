#include "entropy/cdf_table.h"

#include <algorithm>
#include <stdexcept>
#include <string>

namespace encodec_fast {

void check_starts(const uint32_t* starts, int64_t n) {
  if (n < kMinSymbols || n > kMaxSymbols)
    throw std::invalid_argument("cdf: expected 2..65536 symbols, found " + std::to_string(n));
  bool rises = starts[0] == 0 && starts[n] <= kCdfTotal;
  for (int64_t i = 0; i < n; ++i) rises &= starts[i] < starts[i + 1];
  if (!rises)
    throw std::invalid_argument("cdf: expected sums that start at 0, rise and end at 2^24 at most");
}

CdfTable::CdfTable(const uint32_t* starts, int64_t n) {
  check_starts(starts, n);
  starts_.assign(starts, starts + n + 1);
  first_.resize((kCdfTotal >> kBucketBits) + 1);
  int64_t symbol = 0;
  for (size_t bucket = 0; bucket < first_.size(); ++bucket) {
    const auto begin = static_cast<uint32_t>(bucket << kBucketBits);
    while (symbol + 1 < n && starts[symbol + 1] <= begin) ++symbol;
    first_[bucket] = static_cast<uint16_t>(symbol);
  }
}

}  // namespace encodec_fast
