#include "engine/language_model.h"

#include <cmath>
#include <stdexcept>
#include <string>
#include <utility>

#include "engine/float_control.h"
#include "engine/require.h"
#include "kernels/attention.h"

namespace encodec_fast {
namespace {

// Far above any real model; they keep products of sizes inside int64 and memory in proportion.
constexpr int64_t kMaxDim = 1 << 12;
constexpr int64_t kMaxWidth = 1 << 14;
constexpr int64_t kMaxPast = 4095;
constexpr int64_t kMaxLayers = 64;
constexpr int64_t kMaxBooks = 1024;
constexpr int64_t kMaxCacheFloats = 1 << 24;  // of one stream: 64 MB

// 10000^(-i / last) within a few units of the last place of a float64, without the C library's pow,
// which differs between machines; fma and ldexp are exact.
double rate(int64_t i, int64_t last) {
  const double x = static_cast<double>(i) * -9.210340371976184 / static_cast<double>(last);
  constexpr double kShift = 0x1.8p52;  // adding it rounds to an integer
  const double n = (x * 1.4426950408889634 + kShift) - kShift;
  double r = std::fma(n, -0x1.62e42fefa39efp-1, x);
  r = std::fma(n, -0x1.abc9e3b39803fp-56, r);
  double sum = 1.0;  // Taylor, |r| <= ln(2) / 2: the last term is below 1e-19
  for (int term = 16; term > 0; --term) sum = std::fma(sum, r / term, 1.0);
  return std::ldexp(sum, static_cast<int>(n));
}

}  // namespace

LanguageModel::LanguageModel(int64_t dim, int64_t heads, int64_t past, int64_t entries,
                             LayerNorm norm)
    : dim_(dim), heads_(heads), past_(past), entries_(entries), norm_(std::move(norm)) {
  require_in("dim", dim, 4, kMaxDim);
  require_in("heads", heads, 1, dim);
  require(dim % heads == 0 && dim % 2 == 0, "dim: expected an even multiple of heads, found " +
                                                std::to_string(dim) + " for " +
                                                std::to_string(heads) + " heads");
  require_in("past", past, 1, kMaxPast);
  require_in("entries", entries, 2, 65536);
  check("norm_in", norm_);
  const FloatControl control;
  const int64_t head_dim = dim / heads;
  scale_ = 1.0f / std::sqrt(static_cast<float>(head_dim));
  for (int64_t i = 0; i < dim / 2; ++i) rates_.push_back(rate(i, dim / 2 - 1));
}

void LanguageModel::check(const char* name, const Matrix& m, int64_t k, int64_t n) const {
  require(m.k == k && m.n == n && static_cast<int64_t>(m.bias.size()) == n,
          std::string(name) + ": expected a weight [" + std::to_string(k) + ", " +
              std::to_string(n) + "] and a bias of its columns, found [" + std::to_string(m.k) +
              ", " + std::to_string(m.n) + "] and " + std::to_string(m.bias.size()));
}

void LanguageModel::check(const char* name, const LayerNorm& norm) const {
  const size_t size = static_cast<size_t>(dim_);
  require(norm.scale.size() == size && norm.offset.size() == size,
          std::string(name) + ": expected " + std::to_string(dim_) + " scales and offsets, found " +
              std::to_string(norm.scale.size()) + " and " + std::to_string(norm.offset.size()));
}

void LanguageModel::append(LmLayer layer) {
  require(!sealed_, "language model: is in use and cannot be changed");
  require(static_cast<int64_t>(layers_.size()) < kMaxLayers,
          "layers: expected at most " + std::to_string(kMaxLayers));
  require_in("up: width", layer.up.n, 1, kMaxWidth);
  check("qkv", layer.qkv, dim_, 3 * dim_);
  check("out", layer.out, dim_, dim_);
  check("up", layer.up, dim_, layer.up.n);
  check("down", layer.down, layer.up.n, dim_);
  check("norm1", layer.norm1);
  check("norm2", layer.norm2);
  if (layer.up.n > widest_) widest_ = layer.up.n;
  layers_.push_back(std::move(layer));
}

void LanguageModel::append(LmBook book) {
  require(!sealed_, "language model: is in use and cannot be changed");
  require(static_cast<int64_t>(books_.size()) < kMaxBooks,
          "codebooks: expected at most " + std::to_string(kMaxBooks));
  check("head", book.head, dim_, entries_);
  const size_t expected = static_cast<size_t>((entries_ + 1) * dim_);
  const size_t found = book.embedding.size() + book.embedding16.size();
  require(
      found == expected && (book.embedding.empty() || book.embedding16.empty()),
      "embedding: expected [" + std::to_string(entries_ + 1) + ", " + std::to_string(dim_) + "]");
  books_.push_back(std::move(book));
}

void LanguageModel::seal() {
  if (sealed_) return;
  require(!layers_.empty() && !books_.empty(),
          "language model: expected at least one layer and one codebook");
  require(layer_floats() * static_cast<int64_t>(layers_.size()) <= kMaxCacheFloats,
          "past: a stream's keys and values would need more than " +
              std::to_string(kMaxCacheFloats * 4) + " bytes");
  std::vector<Matrix*> matrices;
  for (LmLayer& l : layers_) matrices.insert(matrices.end(), {&l.qkv, &l.out, &l.up, &l.down});
  for (LmBook& b : books_) {
    matrices.push_back(&b.head);
    embeddings_.push_back({b.embedding16.empty() ? b.embedding.data() : nullptr,
                           b.embedding16.empty() ? nullptr : b.embedding16.data()});
  }
  weights_ = settle(matrices);
  sealed_ = true;
}

int64_t LanguageModel::slots() const { return whole_panels(past_ + kLmBlockRows) + kPanel; }

int64_t LanguageModel::layer_floats() const { return 2 * slots() * dim_ + kValueSlack; }

}  // namespace encodec_fast
