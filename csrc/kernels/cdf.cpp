#include "kernels/cdf.h"

#include "kernels/cdf_width.h"
#include "kernels/vec.h"

namespace encodec_fast::EF_ISA {
namespace {

// Sums are of whole numbers in float32: exact up to 2^24, and larger than any valid sum beyond, as
// rounding is monotone. So the order of summation is free.

constexpr int kBlock = 64;  // probabilities between two horizontal sums
constexpr int kVecs = kBlock / kLanes;
constexpr int64_t kMaxBlocks = kMaxSymbols / kBlock;

// The distribution in whole blocks. Zeros behind its end add nothing to the sums.
class Blocks {
 public:
  Blocks(const float* p, int64_t n) noexcept : p_(p), whole_(n / kBlock) {
    const int64_t rest = n - whole_ * kBlock;
    count_ = whole_ + (rest > 0 ? 1 : 0);
    if (rest == 0) return;
    for (int64_t i = 0; i < kBlock; ++i) last_[i] = i < rest ? p[whole_ * kBlock + i] : 0.0f;
  }
  int64_t count() const noexcept { return count_; }
  const float* operator[](int64_t b) const noexcept { return b < whole_ ? p_ + b * kBlock : last_; }

 private:
  const float* p_;
  int64_t whole_;
  int64_t count_;
  float last_[kBlock];
};

// What one pass over the blocks gathers.
class Pass {
 public:
  explicit Pass(int64_t n) noexcept
      : c_(broadcast(cdf_factor(n))), least_{broadcast(0.0f), broadcast(0.0f)} {}

  // The widths less one of a block, summed by lanes.
  Vec block(const float* p) noexcept {
    Vec sum[2] = {broadcast(0.0f), broadcast(0.0f)};
    for (int v = 0; v < kVecs; ++v) {
      const Vec q = load(p + v * kLanes) * c_;
      least_[v % 2] = smaller(q, least_[v % 2]);
      sum[v % 2] = sum[v % 2] + truncate(q);
    }
    return sum[0] + sum[1];
  }
  Vec widths(const float* p) const noexcept { return truncate(load(p) * c_); }
  // The least of each lane is 0 or below.
  bool negative() const noexcept { return sum_lanes(smaller(least_[0], least_[1])) < 0.0f; }

 private:
  Vec c_;
  Vec least_[2];
};

// Whether the distribution is valid, given the sum of its widths less one (not a number if a p is
// not) and that no p is negative. A p above 1 alone makes that sum exceed c, which valid ones
// hardly do: only then each is looked at.
inline bool valid(const float* p, int64_t n, float sum) noexcept {
  const float c = cdf_factor(n);
  if (sum <= c) return true;
  if (!(sum <= c + static_cast<float>(n))) return false;
  for (int64_t i = 0; i < n; ++i) {
    if (!(p[i] <= 1.0f)) return false;
  }
  return true;
}

}  // namespace

Interval cdf_interval(const float* p, int64_t n, int64_t symbol) noexcept {
  const Blocks blocks(p, n);
  Pass pass(n);
  const int64_t home = symbol / kBlock;
  Vec sum = broadcast(0.0f);
  for (int64_t b = 0; b < home; ++b) sum = sum + pass.block(blocks[b]);
  // In the symbol's block, those before it.
  float index[kLanes];
  for (int i = 0; i < kLanes; ++i) index[i] = static_cast<float>(i);
  const Vec lane = load(index);
  Vec before = sum;
  for (int v = 0; v < kVecs; ++v) {
    const Vec count = broadcast(static_cast<float>(symbol - home * kBlock - v * kLanes));
    const Vec widths = pass.widths(blocks[home] + v * kLanes);
    before = before + select_greater(count, lane, widths, broadcast(0.0f));
  }
  for (int64_t b = home; b < blocks.count(); ++b) sum = sum + pass.block(blocks[b]);
  if (pass.negative() || !valid(p, n, sum_lanes(sum))) return {0, 0};
  return {static_cast<uint32_t>(sum_lanes(before)) + static_cast<uint32_t>(symbol),
          cdf_width(p[symbol], cdf_factor(n))};
}

int64_t cdf_find(const float* p, int64_t n, uint32_t target, Interval* interval) noexcept {
  const Blocks blocks(p, n);
  Pass pass(n);
  const Vec wanted = broadcast(static_cast<float>(target));  // exact, as the ends up to it
  Vec sum = broadcast(0.0f);
  Vec begin = broadcast(0.0f);
  float ends[kMaxBlocks];
  int64_t home = 0;  // the blocks that end at the target or before it
  // Where a symbol lies cannot be predicted: branches would cost more than all comparisons.
  for (int64_t b = 0; b < blocks.count(); b += kLanes) {
    Vec row[kLanes];
    for (int64_t i = 0; i < kLanes; ++i)
      row[i] = b + i < blocks.count() ? pass.block(blocks[b + i]) : broadcast(0.0f);
    const Vec widths = sums_of_rows(row);
    sum = sum + widths;
    const Vec end = prefix_sums(widths + broadcast(static_cast<float>(kBlock))) + begin;
    store(ends + b, end);
    home += count_not_above(end, wanted);
    begin = last_lane(end);
  }
  const float total = sum_lanes(sum);
  if (pass.negative() || !valid(p, n, total)) return -1;
  if (target >= static_cast<uint32_t>(total) + static_cast<uint32_t>(n)) return -1;
  const float home_begin = home > 0 ? ends[home - 1] : 0.0f;
  begin = broadcast(home_begin);
  int64_t passed = 0;  // of the block's symbols, likewise
  for (int v = 0; v < kVecs; ++v) {
    const Vec widths = pass.widths(blocks[home] + v * kLanes) + broadcast(1.0f);
    const Vec end = prefix_sums(widths);
    store(ends + v * kLanes, end + begin);
    passed += count_not_above(end + begin, wanted);
    begin = begin + last_lane(end);
  }
  const int64_t symbol = home * kBlock + passed;
  const float start = passed > 0 ? ends[passed - 1] : home_begin;
  *interval = {static_cast<uint32_t>(start), cdf_width(p[symbol], cdf_factor(n))};
  return symbol;
}

bool cdf_starts(const float* p, int64_t n, uint32_t* starts) noexcept {
  const float c = cdf_factor(n);
  uint64_t sum = 0;
  bool in_range = true;
  starts[0] = 0;
  for (int64_t i = 0; i < n && in_range; ++i) {
    in_range = is_probability(p[i]);
    if (in_range) sum += cdf_width(p[i], c);
    starts[i + 1] = static_cast<uint32_t>(sum);
    in_range = in_range && sum <= kCdfTotal;
  }
  return in_range;
}

bool cdf_reference(const float* p, int64_t n, int64_t* cdf) noexcept {
  constexpr float kRoundoff = 1e-8f;
  constexpr int64_t kMinRange = 2;
  const float c = cdf_factor(n);  // (1 - 2n / 2^24) 2^24, exact in float64, too
  bool in_range = true;
  int64_t sum = 0;
  for (int64_t i = 0; i < n; i += kLanes) {
    const int64_t count = n - i < kLanes ? n - i : kLanes;
    const Vec x = count == kLanes ? load(p + i) : load_part(p + i, count);
    // Nothing is negative: truncation is floor.
    const Vec q = truncate(x / broadcast(kRoundoff)) * broadcast(kRoundoff);
    float range[kLanes];
    store(range, truncate(broadcast(c) * q));
    for (int64_t j = 0; j < count; ++j) {
      in_range = in_range && is_probability(p[i + j]);
      if (!in_range) return false;
      sum += static_cast<int64_t>(range[j]) + kMinRange;
      cdf[i + j] = sum;
    }
  }
  return in_range;
}

}  // namespace encodec_fast::EF_ISA
