#include "entropy/range_coder.h"

#include <algorithm>

namespace encodec_fast {

void RangeEncoder::grow() { bytes_.resize(std::max<size_t>(2 * bytes_.size(), 256)); }

// Ends at a byte that is not 255: all that was encoded is a number below 1.
void RangeEncoder::carry() {
  size_t i = used_;
  do {
    --i;
  } while (++bytes_[i] == 0);
}

void RangeEncoder::flush(std::vector<uint8_t>& out) {
  // The number in low..low + range that ends in the most zero bytes, modulo 2^64. Bytes before it
  // stay even where they are zero, so that a decoder never reads more than kMaxPadding of them.
  uint64_t value = low_;
  size_t kept = 8;
  for (; kept > 0; --kept) {
    const unsigned zeros = static_cast<unsigned>(8 * (9 - kept));
    const uint64_t mask = zeros == 64 ? UINT64_MAX : (uint64_t{1} << zeros) - 1;
    const uint64_t rounded = (low_ + mask) & ~mask;
    if (rounded - low_ >= range_) break;
    value = rounded;
  }
  if (value < low_) carry();
  out.insert(out.end(), bytes_.begin(), bytes_.begin() + static_cast<std::ptrdiff_t>(used_));
  for (size_t i = 0; i < kept; ++i) out.push_back(static_cast<uint8_t>(value >> (56 - 8 * i)));
  used_ = 0;
  low_ = 0;
  range_ = UINT64_MAX;
}

RangeDecoder::RangeDecoder(const uint8_t* data, size_t size) : data_(data), size_(size) {
  code_ = next();
  code_ = code_ << 32 | next();
}

}  // namespace encodec_fast
