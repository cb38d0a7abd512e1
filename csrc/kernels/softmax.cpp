#include "kernels/softmax.h"

#include "kernels/elementary.h"
#include "kernels/fold.h"

namespace encodec_fast::EF_ISA {
namespace {

constexpr float kLowest = -3.40282347e38f;

// Neutral elements fill the last row of 16.
inline void load_last(const float* x, int64_t n, float neutral, Vec (&row)[kFoldVecs]) noexcept {
  float values[kFoldLanes];
  for (int64_t j = 0; j < kFoldLanes; ++j) values[j] = j < n ? x[j] : neutral;
  for (int v = 0; v < kFoldVecs; ++v) row[v] = load(values + v * kLanes);
}

// A maximum is exact in any order; for values that are not numbers the order is fixed as well.
inline float largest(const float* x, int64_t n) noexcept {
  Vec acc[kFoldVecs];
  for (int v = 0; v < kFoldVecs; ++v) acc[v] = broadcast(kLowest);
  int64_t i = 0;
  for (; i + kFoldLanes <= n; i += kFoldLanes) {
    for (int v = 0; v < kFoldVecs; ++v) acc[v] = larger(acc[v], load(x + i + v * kLanes));
  }
  if (i < n) {
    Vec row[kFoldVecs];
    load_last(x + i, n - i, kLowest, row);
    for (int v = 0; v < kFoldVecs; ++v) acc[v] = larger(acc[v], row[v]);
  }
  return fold_lanes(acc, [](float a, float b) { return a > b ? a : b; });
}

}  // namespace

float softmax_terms(float* x, int64_t n) noexcept {
  const Vec zero = broadcast(0.0f);
  const Vec most = broadcast(largest(x, n));
  Vec acc[kFoldVecs];
  for (int v = 0; v < kFoldVecs; ++v) acc[v] = zero;
  int64_t i = 0;
  for (; i + kFoldLanes <= n; i += kFoldLanes) {
    for (int v = 0; v < kFoldVecs; ++v) {
      float* const at = x + i + v * kLanes;
      const Vec term = exp_negative(load(at) - most, zero);
      store(at, term);
      acc[v] = acc[v] + term;
    }
  }
  if (i == n) return fold_sum(acc);
  float values[kFoldLanes];
  Vec row[kFoldVecs];
  load_last(x + i, n - i, 0.0f, row);
  for (int v = 0; v < kFoldVecs; ++v) store(values + v * kLanes, exp_negative(row[v] - most, zero));
  for (int64_t j = 0; j < n - i; ++j) x[i + j] = values[j];
  load_last(values, n - i, 0.0f, row);
  // No term is -0, so neither is a sum: adding +0 for a lane without an element changes nothing.
  for (int v = 0; v < kFoldVecs; ++v) acc[v] = acc[v] + row[v];
  return fold_sum(acc);
}

void softmax(float* x, int64_t rows, int64_t n) noexcept {
  for (int64_t t = 0; t < rows; ++t, x += n) {
    const float sum = softmax_terms(x, n);
    const Vec divisor = broadcast(sum);
    int64_t i = 0;
    for (; i + kLanes <= n; i += kLanes) store(x + i, load(x + i) / divisor);
    for (; i < n; ++i) x[i] = x[i] / sum;
  }
}

}  // namespace encodec_fast::EF_ISA
