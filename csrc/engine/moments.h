// Mean and variance of a long array in one pass, always in the same order (docs/determinism.md).
#pragma once

#include <cstdint>
#include <vector>

#include "dispatch.h"

namespace encodec_fast {

// Every block of kReductionBlock elements gives its sum and its squared distance from its own mean,
// while it is in cache; the blocks are combined in index order in double.
class Moments {
 public:
  void clear() { blocks_.clear(); }

  // The next block: kReductionBlock elements, fewer only in the last one.
  void add(const float* x, int64_t n) {
    const float sum = kernels().sum(x, n);
    const float mean = sum / static_cast<float>(n);
    blocks_.push_back({n, sum, mean, kernels().sum_squares(x, n, mean)});
  }

  float mean() const {
    double sum = 0.0;
    for (const Block& b : blocks_) sum += b.sum;
    return static_cast<float>(sum / count());
  }

  // Around the mean as a float32, which is what is subtracted.
  float variance() const {
    const double center = mean();
    double squares = 0.0;
    for (const Block& b : blocks_) {
      const double distance = b.mean - center;
      squares += b.squares + static_cast<double>(b.n) * (distance * distance);
    }
    return static_cast<float>(squares / count());
  }

 private:
  struct Block {
    int64_t n;
    float sum, mean, squares;
  };
  double count() const {
    int64_t n = 0;
    for (const Block& b : blocks_) n += b.n;
    return static_cast<double>(n);
  }
  std::vector<Block> blocks_;
};

}  // namespace encodec_fast
