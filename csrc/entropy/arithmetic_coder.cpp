#include "entropy/arithmetic_coder.h"

#include <stdexcept>
#include <string>

namespace encodec_fast {
namespace {

constexpr int kRangeBits = 24;
constexpr uint64_t kRange = uint64_t{1} << kRangeBits;
// Of the reference. Between two of its checks there may be a few bits more, for which there is room
// for one: streams do not come near (39 bits were the most seen).
constexpr int kMaxBit = 61;

// delta is in 2^24..2^25 - 1 and a bound below 2^26: all products fit.
uint64_t lower(uint64_t bound, uint64_t delta) {
  return (bound * delta + kRange - 1) >> kRangeBits;
}
uint64_t upper(uint64_t bound, uint64_t delta) { return bound * delta >> kRangeBits; }

uint64_t below(int max_bit) { return (uint64_t{1} << (max_bit + 1)) - 1; }

}  // namespace

void ArithmeticEncoder::encode(const int64_t* cdf, int64_t symbol) {
  const int64_t begin = symbol == 0 ? 0 : cdf[symbol - 1];
  const int64_t end = cdf[symbol];
  if (begin < 0 || begin >= end || end > static_cast<int64_t>(kRange)) {
    throw std::invalid_argument("cdf: symbol " + std::to_string(symbol) + " has the interval " +
                                std::to_string(begin) + ".." + std::to_string(end) +
                                ", not one within 0..2^24");
  }
  uint64_t low = low_;
  uint64_t high = high_;
  int max_bit = max_bit_;
  for (; high - low + 1 < kRange; ++max_bit) {
    if (max_bit > kMaxBit) throw std::overflow_error("cdf: an interval cannot be made narrower");
    low = 2 * low;
    high = 2 * high + 1;
  }
  const uint64_t delta = high - low + 1;
  high = low + upper(static_cast<uint64_t>(end - 1), delta);
  low = low + lower(static_cast<uint64_t>(begin), delta);
  if (low > high) throw std::invalid_argument("cdf: an interval is narrower than 2");
  int kept = max_bit;
  while (kept >= 0 && (low >> kept) == (high >> kept)) --kept;
  if (kept > kMaxBit) throw std::overflow_error("cdf: an interval cannot be made narrower");
  for (int bit = max_bit; bit > kept; --bit) put(low >> bit & 1);
  low_ = low & below(kept);
  high_ = high & below(kept);
  max_bit_ = kept;
}

ArithmeticEncoder::Mark ArithmeticEncoder::mark() const {
  const uint8_t last = bytes_.empty() ? uint8_t{0} : bytes_.back();
  return {low_, high_, max_bit_, filled_, bytes_.size(), last};
}

void ArithmeticEncoder::rewind(const Mark& mark) {
  low_ = mark.low;
  high_ = mark.high;
  max_bit_ = mark.max_bit;
  filled_ = mark.filled;
  bytes_.resize(mark.size);
  if (!bytes_.empty()) bytes_.back() = mark.last;
}

void ArithmeticEncoder::put(uint64_t bit) {
  if (filled_ == 0) bytes_.push_back(0);
  bytes_.back() = static_cast<uint8_t>(bytes_.back() | bit << filled_);
  filled_ = (filled_ + 1) % 8;
}

void ArithmeticEncoder::flush(std::vector<uint8_t>& out) {
  for (int bit = max_bit_; bit >= 0; --bit) put(low_ >> bit & 1);
  out.insert(out.end(), bytes_.begin(), bytes_.end());
  *this = ArithmeticEncoder();
}

int64_t ArithmeticDecoder::decode(const int64_t* cdf, int64_t n) {
  for (; high_ - low_ + 1 < kRange; ++max_bit_, ++bit_) {
    if (bit_ / 8 >= size_) return kEnd;
    if (max_bit_ > kMaxBit) return kDamaged;
    low_ = 2 * low_;
    high_ = 2 * high_ + 1;
    current_ = 2 * current_ + (data_[bit_ / 8] >> (bit_ % 8) & 1);
  }
  const uint64_t delta = high_ - low_ + 1;
  int64_t first = 0;
  int64_t last = n - 1;
  while (first <= last) {
    const int64_t symbol = (first + last) / 2;
    const auto begin = static_cast<uint64_t>(symbol == 0 ? 0 : cdf[symbol - 1]);
    const uint64_t low = low_ + lower(begin, delta);
    const uint64_t high = low_ + upper(static_cast<uint64_t>(cdf[symbol] - 1), delta);
    if (current_ < low) {
      last = symbol - 1;
    } else if (current_ > high) {
      first = symbol + 1;
    } else {
      int kept = max_bit_;
      while (kept >= 0 && (low >> kept) == (high >> kept)) --kept;
      const uint64_t common = low & ~below(kept);
      low_ = low - common;
      high_ = high - common;
      current_ -= common;
      max_bit_ = kept;
      return symbol;
    }
  }
  return kDamaged;
}

}  // namespace encodec_fast
