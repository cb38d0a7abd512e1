// The entropy language model (docs/entropy.md): a Transformer that predicts the codes of a step
// from those of the steps before. Immutable once sealed and shared by all states.
#pragma once

#include <cstdint>
#include <vector>

#include "engine/matrix.h"
#include "engine/memory.h"
#include "kernels/embedding.h"

namespace encodec_fast {

struct LayerNorm {
  std::vector<float> scale, offset;  // [dim]
};

struct LmLayer {
  Matrix qkv;              // [dim][3 * dim]: queries, keys, values
  Matrix out;              // [dim][dim]
  Matrix up, down;         // [dim][any width], and back
  LayerNorm norm1, norm2;  // behind the attention and behind the feed-forward block
};

// What belongs to one codebook.
struct LmBook {
  std::vector<float> embedding;  // [entries + 1][dim], row 0 for "no step before"; one of the two
  std::vector<uint16_t> embedding16;
  Matrix head;  // [dim][entries]
};

class LanguageModel {
 public:
  // All throw std::invalid_argument for sizes that do not fit or are out of range.
  LanguageModel(int64_t dim, int64_t heads, int64_t past, int64_t entries, LayerNorm norm);
  void append(LmLayer layer);
  void append(LmBook book);

  // Ends the building. Throws for a model without layers or codebooks, and for one whose states
  // would need too much memory.
  void seal();

  int64_t dim() const { return dim_; }
  int64_t heads() const { return heads_; }
  int64_t past() const { return past_; }  // steps before the present one that it sees
  int64_t entries() const { return entries_; }
  int64_t widest() const { return widest_; }  // of the feed-forward blocks
  float scale() const { return scale_; }      // of the scores: 1 / sqrt(dim / heads)
  const LayerNorm& norm() const { return norm_; }
  const std::vector<LmLayer>& layers() const { return layers_; }
  const std::vector<LmBook>& books() const { return books_; }
  const Embedding* embeddings() const { return embeddings_.data(); }  // [books]
  const double* rates() const { return rates_.data(); }               // [dim / 2], of the positions

  // Entries of the cache of a layer's keys and values, and floats of one stream's caches.
  int64_t slots() const;
  int64_t layer_floats() const;

 private:
  void check(const char* name, const Matrix& m, int64_t k, int64_t n) const;
  void check(const char* name, const LayerNorm& norm) const;

  int64_t dim_, heads_, past_, entries_;
  int64_t widest_ = 0;
  float scale_ = 0.0f;
  LayerNorm norm_;
  std::vector<LmLayer> layers_;
  std::vector<LmBook> books_;
  std::vector<Embedding> embeddings_;
  std::vector<double> rates_;
  Memory weights_;
  bool sealed_ = false;
};

// Steps of one stream that are evaluated together.
inline constexpr int64_t kLmBlockRows = 64;
inline constexpr float kLmEpsilon = 1e-5f;  // of the layer norms

}  // namespace encodec_fast
