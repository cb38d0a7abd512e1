#include "kernels/norm.h"

#include "kernels/elements.h"
#include "kernels/fold.h"

namespace encodec_fast::EF_ISA {
namespace {

// Runs add(acc, x) over all elements; the missing lanes of the last row take `neutral`.
template <typename Add>
inline float reduce(const float* x, int64_t n, float neutral, Add add) noexcept {
  Vec acc[kFoldVecs];
  for (int v = 0; v < kFoldVecs; ++v) acc[v] = broadcast(0.0f);
  int64_t i = 0;
  for (; i + kFoldLanes <= n; i += kFoldLanes) {
    for (int v = 0; v < kFoldVecs; ++v) acc[v] = add(acc[v], load(x + i + v * kLanes));
  }
  if (i < n) {
    float row[kFoldLanes];
    for (int j = 0; j < kFoldLanes; ++j) row[j] = i + j < n ? x[i + j] : neutral;
    for (int v = 0; v < kFoldVecs; ++v) acc[v] = add(acc[v], load(row + v * kLanes));
  }
  return fold_sum(acc);
}

// What is added.
enum Addend { kNone, kPlain, kNormed };

template <Addend kAddend>
void finish(const NormTerm& term, const NormTerm& add, int64_t rows, int64_t channels, float* out,
            float* elu_out) noexcept {
  const Vec mean = broadcast(term.mean);
  const Vec add_mean = broadcast(add.mean);
  // get reads a vector, put writes one.
  const auto step = [&](int64_t i, int64_t c, auto get, auto put) {
    Vec y = normed(get(term.x + i), mean, get(term.scale + c), get(term.offset + c));
    if constexpr (kAddend == kPlain) y = y + get(add.x + i);
    if constexpr (kAddend == kNormed)
      y = y + normed(get(add.x + i), add_mean, get(add.scale + c), get(add.offset + c));
    if (out != nullptr) put(out + i, y);
    if (elu_out != nullptr) put(elu_out + i, elu(y));
  };
  for (int64_t t = 0; t < rows; ++t) {
    const int64_t row = t * channels;
    int64_t c = 0;
    for (; c + kLanes <= channels; c += kLanes) {
      step(
          row + c, c, [](const float* p) { return load(p); }, [](float* p, Vec x) { store(p, x); });
    }
    if (c == channels) continue;
    const int64_t rest = channels - c;
    step(
        row + c, c, [rest](const float* p) { return load_part(p, rest); },
        [rest](float* p, Vec x) { store_part(p, x, rest); });
  }
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

void normalize(const NormTerm& term, const NormTerm& add, int64_t rows, int64_t channels,
               float* out, float* elu_out) noexcept {
  if (add.x == nullptr) {
    return finish<kNone>(term, add, rows, channels, out, elu_out);
  }
  if (add.scale == nullptr) {
    return finish<kPlain>(term, add, rows, channels, out, elu_out);
  }
  finish<kNormed>(term, add, rows, channels, out, elu_out);
}

void layer_norm(const float* x, const float* scale, const float* offset, float eps, int64_t rows,
                int64_t channels, float* out) noexcept {
  const float count = static_cast<float>(channels);
  for (int64_t t = 0; t < rows; ++t, x += channels, out += channels) {
    const float mean = sum(x, channels) / count;
    const float variance = sum_squares(x, channels, mean) / count;
    const Vec center = broadcast(mean);
    const Vec factor = broadcast(1.0f / __builtin_sqrtf(variance + eps));
    int64_t c = 0;
    for (; c + kLanes <= channels; c += kLanes) {
      const Vec y = fma(load(x + c) - center, load(scale + c) * factor, load(offset + c));
      store(out + c, y);
    }
    if (c == channels) continue;
    const int64_t rest = channels - c;
    const Vec y = fma(load_part(x + c, rest) - center, load_part(scale + c, rest) * factor,
                      load_part(offset + c, rest));
    store_part(out + c, y, rest);
  }
}

}  // namespace encodec_fast::EF_ISA
