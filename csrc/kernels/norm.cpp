#include "kernels/norm.h"

namespace encodec_fast::EF_ISA {
namespace {

constexpr int64_t kBlock = 4096;
constexpr int kSumLanes = 16;

inline double fold(float (&lane)[kSumLanes]) noexcept {
  for (int width = kSumLanes / 2; width > 0; width /= 2) {
    for (int j = 0; j < width; ++j) lane[j] += lane[j + width];
  }
  return lane[0];
}

}  // namespace

double sum(const float* x, int64_t n) noexcept {
  double total = 0.0;
  for (int64_t start = 0; start < n; start += kBlock) {
    const int64_t count = n - start < kBlock ? n - start : kBlock;
    const float* p = x + start;
    float lane[kSumLanes] = {};
    int64_t i = 0;
    for (; i + kSumLanes <= count; i += kSumLanes) {
      for (int j = 0; j < kSumLanes; ++j) lane[j] += p[i + j];
    }
    for (int j = 0; i + j < count; ++j) lane[j] += p[i + j];
    total += fold(lane);
  }
  return total;
}

double sum_squares(const float* x, int64_t n, float mean) noexcept {
  double total = 0.0;
  for (int64_t start = 0; start < n; start += kBlock) {
    const int64_t count = n - start < kBlock ? n - start : kBlock;
    const float* p = x + start;
    float lane[kSumLanes] = {};
    int64_t i = 0;
    for (; i + kSumLanes <= count; i += kSumLanes) {
      for (int j = 0; j < kSumLanes; ++j) {
        const float d = p[i + j] - mean;
        lane[j] = __builtin_fmaf(d, d, lane[j]);
      }
    }
    for (int j = 0; i + j < count; ++j) {
      const float d = p[i + j] - mean;
      lane[j] = __builtin_fmaf(d, d, lane[j]);
    }
    total += fold(lane);
  }
  return total;
}

void normalize(float* x, int64_t rows, int64_t channels, float mean, const float* scale,
               const float* offset, const float* add) noexcept {
  for (int64_t t = 0; t < rows; ++t, x += channels) {
    for (int64_t c = 0; c < channels; ++c) x[c] = __builtin_fmaf(x[c] - mean, scale[c], offset[c]);
    if (add == nullptr) continue;
    for (int64_t c = 0; c < channels; ++c) x[c] += add[t * channels + c];
  }
}

}  // namespace encodec_fast::EF_ISA
