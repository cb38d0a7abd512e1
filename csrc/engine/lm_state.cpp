#include "engine/lm_state.h"

#include <algorithm>

#include "dispatch.h"

namespace encodec_fast {
namespace {

size_t size_of(int64_t count) { return static_cast<size_t>(count); }

AttentionArgs attention_args(const LanguageModel& m, float* cache) {
  AttentionArgs args{};
  args.keys = cache;
  args.values = cache + m.slots() * m.dim();
  args.slots = m.slots();
  args.heads = m.heads();
  args.head_dim = m.dim() / m.heads();
  args.reach = m.past();
  return args;
}

}  // namespace

LmState::LmState(const LanguageModel& model, int64_t n_q, int64_t lanes)
    : model_(model), n_q_(n_q), lanes_(size_of(lanes)) {}

void LmState::reset(int64_t lane) { lanes_[size_of(lane)].steps = 0; }

uint32_t* LmState::indices(int64_t rows) {
  rows_ = rows;
  indices_.resize(size_of(rows * n_q_));
  return indices_.data();
}

// The first entry of every layer is the projection of an all-zero input: the biases.
void LmState::start(Lane& lane) {
  const size_t layers = model_.layers().size();
  const size_t floats = size_of(model_.layer_floats()) * layers;
  if (lane.cache == nullptr) {
    lane.cache = allocate(floats * sizeof(float));
    // Slots are read before they are written, though nothing comes of it.
    std::fill_n(reinterpret_cast<float*>(lane.cache.get()), floats, 0.0f);
  }
  for (size_t l = 0; l < layers; ++l) {
    float* const cache = reinterpret_cast<float*>(lane.cache.get()) +
                         static_cast<int64_t>(l) * model_.layer_floats();
    AttentionArgs args = attention_args(model_, cache);
    args.qkv = model_.layers()[l].qkv.bias.data();
    args.rows = 1;
    kernels().remember(args);
  }
}

void LmState::multiply(const Matrix& weight, const float* in, const float* add, float* out) const {
  const GemmPart part = {in, add, out, nullptr, rows_};
  kernels().gemm({&part, 1, weight.k, weight.panels, weight.panels16, weight.n, weight.k, false,
                  weight.bias.data()});
}

void LmState::attend(size_t layer, const std::vector<LmRun>& runs) {
  const int64_t dim = model_.dim();
  int64_t row = 0;
  for (const LmRun& run : runs) {
    const Lane& lane = lanes_[size_of(run.lane)];
    float* const cache = reinterpret_cast<float*>(lane.cache.get()) +
                         static_cast<int64_t>(layer) * model_.layer_floats();
    AttentionArgs args = attention_args(model_, cache);
    args.qkv = qkv_.data() + row * 3 * dim;
    args.first = lane.steps + 1;
    args.rows = run.rows;
    args.scale = model_.scale();
    args.scores = scores_.data();
    args.out = mixed_.data() + row * dim;
    kernels().remember(args);
    kernels().attend(args);
    row += run.rows;
  }
}

void LmState::run(const std::vector<LmRun>& runs) {
  const Kernels& k = kernels();
  const int64_t dim = model_.dim();
  float* const x = x_.room(size_of(rows_ * dim));
  float* const y = y_.room(size_of(rows_ * dim));
  float* const qkv = qkv_.room(size_of(rows_ * 3 * dim));
  float* const mixed = mixed_.room(size_of(rows_ * dim));
  float* const hidden = hidden_.room(size_of(rows_ * model_.widest()));
  scores_.room(size_of(kAttentionRows * model_.slots()));

  const auto norm = [&](const LayerNorm& n, const float* in, float* out) {
    k.layer_norm(in, n.scale.data(), n.offset.data(), kLmEpsilon, rows_, dim, out);
  };
  k.embed(model_.embeddings(), n_q_, indices_.data(), rows_, dim, y);
  norm(model_.norm(), y, x);
  int64_t row = 0;
  for (const LmRun& run : runs) {
    Lane& lane = lanes_[size_of(run.lane)];
    if (lane.steps == 0) start(lane);
    k.add_positions(model_.rates(), dim / 2, lane.steps, run.rows, x + row * dim);
    row += run.rows;
  }
  for (size_t l = 0; l < model_.layers().size(); ++l) {
    const LmLayer& layer = model_.layers()[l];
    multiply(layer.qkv, x, nullptr, qkv);
    attend(l, runs);
    multiply(layer.out, mixed, x, y);
    norm(layer.norm1, y, x);
    multiply(layer.up, x, nullptr, hidden);
    k.gelu(hidden, rows_ * layer.up.n);
    multiply(layer.down, hidden, x, y);
    norm(layer.norm2, y, x);
  }
  for (const LmRun& run : runs) lanes_[size_of(run.lane)].steps += run.rows;
}

const float* LmState::probabilities(int64_t codebook) {
  float* const logits = logits_.room(size_of(rows_ * model_.entries()));
  multiply(model_.books()[size_of(codebook)].head, x_.data(), nullptr, logits);
  kernels().softmax(logits, rows_, model_.entries());
  return logits;
}

}  // namespace encodec_fast
