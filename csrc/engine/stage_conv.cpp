// Convolutions of a stage: padding, products, and what follows a product that is not final.
#include <algorithm>
#include <cmath>

#include "dispatch.h"
#include "engine/stage.h"

namespace encodec_fast {
namespace {

// A product that is reduced at once is made in pieces of this many values, which stay in cache.
constexpr int64_t kPiece = 1 << 14;

}  // namespace

// Fills the rows in front of the first block of a stream and behind the last one.
void Stage::pad(int index, size_t w) {
  const Op& o = op(index);
  const int64_t width = o.in_channels;
  const bool fresh = !lane(w).started;
  const int64_t left = fresh ? start_padding(o) : 0;
  const int64_t count = rows(o.input, w);
  const int64_t right = last(w) ? end_padding(o, before(o.input, w) + count) : 0;
  float* const first = body(layout_.plan(index).input, w);
  const bool mirrored_start = o.reflect && start_ == Start::kExact && fresh;
  // A whole signal shorter than its padding is first extended by zeros, mirrored, and cut again
  // (docs/program.md).
  const int64_t extended = mirrored_start ? std::max(count, std::max(left, right) + 1) : count;
  const auto fill = [&](int64_t row, bool mirrored) {
    int64_t source = row < 0 ? -row : row;
    if (source >= extended) source = 2 * (extended - 1) - source;
    float* to = first + row * width;
    if (source >= count || !mirrored) {
      std::fill(to, to + width, 0.0f);
    } else {
      std::copy(first + source * width, first + (source + 1) * width, to);
    }
  };
  for (int64_t row = -left; row < 0; ++row) fill(row, mirrored_start);
  for (int64_t row = count; row < count + right; ++row) fill(row, o.reflect);
}

// Group norm counts the rows that trimming drops, at the start and at the end; otherwise a product
// is final.
bool Stage::needs_finish(int index, size_t w) {
  const Op& o = op(index);
  return !o.norm.scale.empty() || (o.trim_left > 0 && (last(w) || !lane(w).started));
}

int64_t Stage::product_rows(int index, size_t w) {
  const Op& o = op(index);
  if (o.kind != OpKind::kConvTranspose) return rows(index + 1, w);
  return rows(o.input, w) + (last(w) && needs_finish(index, w) ? 1 : 0);
}

// All blocks in one product, so that they share each read of the weights.
void Stage::run_conv(int index) {
  const Op& o = op(index);
  parts_.clear();
  for (size_t w = 0; w < count_; ++w) {
    if (padded(o)) pad(index, w);
    if (needs_finish(index, w)) continue;
    GemmPart part = outputs(index, w);
    part.a = input(index, w);
    part.m = product_rows(index, w);
    if (part.m > 0) parts_.push_back(part);
  }
  const bool transposed = o.kind == OpKind::kConvTranspose;
  if (!parts_.empty())
    multiply(o.weight, (transposed ? 1 : o.stride) * o.in_channels, o.weight.bias.data());
  for (size_t w = 0; w < count_; ++w) {
    if (needs_finish(index, w)) run_conv_then_finish(index, w);
  }
}

void Stage::multiply(const Matrix& weight, int64_t a_stride, const float* bias, bool backward) {
  GemmArgs g = {};
  g.parts = parts_.data();
  g.part_count = static_cast<int64_t>(parts_.size());
  g.a_stride = a_stride;
  g.panels = weight.panels;
  g.panels16 = weight.panels16;
  g.n = weight.n;
  g.k = weight.k;
  g.bias = bias;
  g.backward = backward;
  kernels().gemm(g);
}

// The product of one block in pieces, its moments taken while a piece is in cache; then group norm,
// trimming and addition in one pass.
void Stage::run_conv_then_finish(int index, size_t w) {
  const Op& o = op(index);
  const bool transposed = o.kind == OpKind::kConvTranspose;
  const bool normed_here = !o.norm.scale.empty();
  const int64_t width = o.out_channels;
  const int64_t m = product_rows(index, w);
  const int64_t a_stride = (transposed ? 1 : o.stride) * o.in_channels;
  const float* a = input(index, w);
  const GemmPart to = outputs(index, w);
  float* product = to.out != nullptr ? to.out : to.elu;
  if (transposed) {
    product = product_.room(static_cast<size_t>(m * o.weight.n));
  }
  moments_.clear();
  const int64_t step = std::max<int64_t>(kPiece / o.weight.n / 6 * 6, 6);
  int64_t reduced = 0;
  for (int64_t i = 0; i < m; i += step) {
    const int64_t count = std::min(step, m - i);
    parts_.assign(1, {a + i * a_stride, nullptr, product + i * o.weight.n, nullptr, count});
    multiply(o.weight, a_stride, o.weight.bias.data());
    if (!normed_here) continue;
    const int64_t ready = (i + count) * o.weight.n;
    while (ready - reduced >= kReductionBlock || (i + count == m && reduced < ready)) {
      const int64_t n = std::min(ready - reduced, kReductionBlock);
      moments_.add(product + reduced, n);
      reduced += n;
    }
  }
  const int64_t out_rows = rows(index + 1, w);
  const float* from = product + (lane(w).started ? 0 : o.trim_left) * width;
  if (!normed_here) return kernels().activate(from, to.add, to.out, to.elu, out_rows * width);
  Normed& norm = normed(index, w);
  const float inverse = 1.0f / std::sqrt(moments_.variance() + o.norm.eps);
  norm.mean = moments_.mean();
  norm.scale.resize(static_cast<size_t>(width));
  for (size_t c = 0; c < norm.scale.size(); ++c) norm.scale[c] = inverse * o.norm.scale[c];
  if (deferred_[static_cast<size_t>(index - first_)]) return;
  const bool adds_product = o.add > first_ && deferred_[static_cast<size_t>(o.add - 1 - first_)];
  const NormTerm add =
      adds_product ? term(o.add - 1, w, to.add) : NormTerm{to.add, 0.0f, nullptr, nullptr};
  kernels().normalize(term(index, w, from), add, out_rows, width, to.out, to.elu);
}

NormTerm Stage::term(int index, size_t w, const float* x) {
  const Normed& norm = normed(index, w);
  return {x, norm.mean, norm.scale.data(), op(index).norm.offset.data()};
}

}  // namespace encodec_fast
