#include "kernels/norm.h"

#include "kernels/elementary.h"

namespace encodec_fast::EF_ISA {
namespace {

constexpr int kSumLanes = 16;
constexpr int kVecs = kSumLanes / kLanes;

inline float fold(const Vec (&acc)[kVecs]) noexcept {
  float lane[kSumLanes];
  for (int v = 0; v < kVecs; ++v) store(lane + v * kLanes, acc[v]);
  for (int width = kSumLanes / 2; width > 0; width /= 2) {
    for (int j = 0; j < width; ++j) lane[j] += lane[j + width];
  }
  return lane[0];
}

// Runs add(acc, x) over all elements; the missing lanes of the last row take `neutral`.
template <typename Add>
inline float reduce(const float* x, int64_t n, float neutral, Add add) noexcept {
  Vec acc[kVecs];
  for (int v = 0; v < kVecs; ++v) acc[v] = broadcast(0.0f);
  int64_t i = 0;
  for (; i + kSumLanes <= n; i += kSumLanes) {
    for (int v = 0; v < kVecs; ++v) acc[v] = add(acc[v], load(x + i + v * kLanes));
  }
  if (i < n) {
    float row[kSumLanes];
    for (int j = 0; j < kSumLanes; ++j) row[j] = i + j < n ? x[i + j] : neutral;
    for (int v = 0; v < kVecs; ++v) acc[v] = add(acc[v], load(row + v * kLanes));
  }
  return fold(acc);
}

}  // namespace

// A sum that starts from +0 is never -0, so adding the neutral +0, here or squared below, changes
// nothing.
float sum(const float* x, int64_t n) noexcept {
  return reduce(x, n, 0.0f, [](Vec acc, Vec v) { return acc + v; });
}

float sum_squares(const float* x, int64_t n, float mean) noexcept {
  const Vec center = broadcast(mean);
  return reduce(x, n, mean, [center](Vec acc, Vec v) {
    const Vec d = v - center;
    return fma(d, d, acc);
  });
}

void normalize(const float* x, int64_t rows, int64_t channels, float mean, const float* scale,
               const float* offset, const float* add, float* out, float* elu_out) noexcept {
  const Vec center = broadcast(mean);
  for (int64_t t = 0; t < rows; ++t) {
    const int64_t row = t * channels;
    int64_t c = 0;
    for (; c + kLanes <= channels; c += kLanes) {
      const int64_t i = row + c;
      Vec y = fma(load(x + i) - center, load(scale + c), load(offset + c));
      if (add != nullptr) y = y + load(add + i);
      if (out != nullptr) store(out + i, y);
      if (elu_out != nullptr) store(elu_out + i, elu(y));
    }
    if (c == channels) continue;
    const int64_t i = row + c;
    const int64_t rest = channels - c;
    Vec y = fma(load_part(x + i, rest) - center, load_part(scale + c, rest),
                load_part(offset + c, rest));
    if (add != nullptr) y = y + load_part(add + i, rest);
    if (out != nullptr) store_part(out + i, y, rest);
    if (elu_out != nullptr) store_part(elu_out + i, elu(y), rest);
  }
}

}  // namespace encodec_fast::EF_ISA
