#include "cuda/lm_weights.h"

#include <cstring>

#include "cuda/pack.h"

namespace encodec_fast::cuda {
namespace {

size_t size_of(int64_t count) { return static_cast<size_t>(count); }

// Where arrays lie in the pack, which moves as it grows; pointers are made when it is uploaded.
struct MatrixPlace {
  size_t panels, bias;
  int64_t k, n;
  DeviceMatrix from(const float* base) const { return {base + panels, base + bias, k, n}; }
};
struct NormPlace {
  size_t scale, offset;
  DeviceNorm from(const float* base) const { return {base + scale, base + offset}; }
};
struct LayerPlace {
  MatrixPlace qkv, out, up, down;
  NormPlace norm1, norm2;
};

MatrixPlace place_matrix(Pack& pack, const Matrix& m) {
  const size_t panels = pack_matrix(pack, m);
  const size_t bias = pack.room(size_of(whole_panels(m.n)));
  std::memcpy(&pack[bias], m.bias.data(), m.bias.size() * sizeof(float));
  return {panels, bias, m.k, m.n};
}

NormPlace place_norm(Pack& pack, const LayerNorm& norm) {
  const size_t scale = pack.add(norm.scale);
  return {scale, pack.add(norm.offset)};
}

LayerPlace place_layer(Pack& pack, const LmLayer& l) {
  LayerPlace p = {};
  p.qkv = place_matrix(pack, l.qkv);
  p.out = place_matrix(pack, l.out);
  p.up = place_matrix(pack, l.up);
  p.down = place_matrix(pack, l.down);
  p.norm1 = place_norm(pack, l.norm1);
  p.norm2 = place_norm(pack, l.norm2);
  return p;
}

// All heads as one matrix.
MatrixPlace place_heads(Pack& pack, const LanguageModel& model, int64_t padded) {
  const int64_t books = static_cast<int64_t>(model.books().size());
  const MatrixPlace p = {pack.room(size_of(books * padded * model.dim())),
                         pack.room(size_of(books * padded)), model.dim(), books * padded};
  size_t panels = p.panels;
  size_t bias = p.bias;
  for (const LmBook& book : model.books()) {
    widen_panels(book.head, &pack[panels]);
    std::memcpy(&pack[bias], book.head.bias.data(), book.head.bias.size() * sizeof(float));
    panels += panel_floats(book.head);
    bias += size_of(padded);
  }
  return p;
}

size_t place_embeddings(Pack& pack, const LanguageModel& model) {
  const size_t each = size_of((model.entries() + 1) * model.dim());
  const size_t at = pack.room(model.books().size() * each);
  float* to = &pack[at];
  for (const LmBook& book : model.books()) {
    for (size_t i = 0; i < each; ++i)
      to[i] = book.embedding16.empty() ? book.embedding[i] : widen(book.embedding16[i]);
    to += each;
  }
  return at;
}

size_t place_rates(Pack& pack, const LanguageModel& model) {
  const size_t bytes = size_of(model.dim() / 2) * sizeof(double);
  const size_t at = pack.room(bytes / sizeof(float));
  std::memcpy(&pack[at], model.rates(), bytes);
  return at;
}

}  // namespace

DeviceLanguageModel::DeviceLanguageModel(std::shared_ptr<const LanguageModel> model, int device)
    : model_(std::move(model)),
      device_(device),
      multiprocessors_(device_info(device).multiprocessors),
      padded_(whole_panels(model_->entries())) {
  Pack pack;
  const NormPlace norm = place_norm(pack, model_->norm());
  std::vector<LayerPlace> layers;
  for (const LmLayer& l : model_->layers()) layers.push_back(place_layer(pack, l));
  const MatrixPlace heads = place_heads(pack, *model_, padded_);
  const size_t embeddings = place_embeddings(pack, *model_);
  const size_t rates = place_rates(pack, *model_);
  pack.upload(device, memory_);
  const float* const base = memory_.floats();
  norm_ = norm.from(base);
  for (const LayerPlace& p : layers) {
    layers_.push_back({p.qkv.from(base), p.out.from(base), p.up.from(base), p.down.from(base),
                       p.norm1.from(base), p.norm2.from(base)});
  }
  heads_ = heads.from(base);
  embeddings_ = base + embeddings;
  rates_ = reinterpret_cast<const double*>(base + rates);
}

}  // namespace encodec_fast::cuda
