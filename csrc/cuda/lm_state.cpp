#include "cuda/lm_state.h"

#include <algorithm>

namespace encodec_fast::cuda {
namespace {

// Enough to fill the multiprocessors of the largest GPUs.
constexpr int64_t kMostRows = 4096;
// Of the probabilities of a block, whatever the model: 256 MB.
constexpr int64_t kMostFloats = int64_t{1} << 26;

size_t floats(int64_t count) { return static_cast<size_t>(count) * sizeof(float); }

}  // namespace

LmState::LmState(std::shared_ptr<const DeviceLanguageModel> model, int64_t n_q, int64_t lanes)
    : model_(std::move(model)),
      n_q_(n_q),
      most_rows_(std::clamp<int64_t>(kMostFloats / (n_q * model_->padded()), 1, kMostRows)),
      run_rows_(attention_rows(model_->model().past())),
      lanes_(static_cast<size_t>(lanes)) {}

void LmState::open(const std::vector<int64_t>& lanes) {
  std::vector<Lane*> fresh;
  for (const int64_t lane : lanes) {
    Lane& one = lanes_[static_cast<size_t>(lane)];
    if (one.cache == nullptr) fresh.push_back(&one);
  }
  if (fresh.empty()) return;
  // Nothing is cleared: an entry is read after it was written.
  const int64_t each =
      2 * sizes().past() * sizes().dim() * static_cast<int64_t>(model_->layers().size());
  DeviceMemory memory;
  memory.reserve(floats(each * static_cast<int64_t>(fresh.size())));
  float* cache = memory.floats();
  caches_.push_back(std::move(memory));
  for (Lane* one : fresh) {
    one->cache = cache;
    cache += each;
  }
}

void LmState::reserve(int64_t rows, Queue& queue) {
  if (rows <= rows_) return;
  rows_ = 0;  // until all of it is there
  ++version_;
  const int64_t dim = sizes().dim();
  const int64_t logits = n_q_ * model_->padded();
  x_.reserve(floats(rows * dim));
  y_.reserve(floats(rows * dim));
  qkv_.reserve(floats(rows * 3 * dim));
  mixed_.reserve(floats(rows * dim));
  hidden_.reserve(floats(rows * sizes().widest()));
  logits_.reserve(floats(rows * logits));
  float* const x = x_.floats();
  float* const y = y_.floats();
  const Part parts[kSteps] = {
      {x, nullptr, qkv_.floats(), nullptr, rows, 0},    {mixed_.floats(), x, y, nullptr, rows, 0},
      {x, nullptr, hidden_.floats(), nullptr, rows, 0}, {hidden_.floats(), x, y, nullptr, rows, 0},
      {x, nullptr, logits_.floats(), nullptr, rows, 0},
  };
  parts_.reserve(sizeof parts);
  queue.upload(parts_.bytes(), parts, sizeof parts);
  queue.finish();
  rows_ = rows;
}

void LmState::multiply(const DeviceMatrix& m, Step step, int64_t rows, cudaStream_t stream) const {
  const auto* part = reinterpret_cast<const Part*>(parts_.bytes()) + step;
  gemm({part, 1, rows, m.k, m.n, m.k, m.panels, m.bias, m.k % 4 == 0, m.n % 4 == 0},
       model_->multiprocessors(), stream);
}

int64_t LmState::kernels() const { return 3 + 9 * static_cast<int64_t>(model_->layers().size()); }

void LmState::run(const LmRuns& block, int64_t run_rows, cudaStream_t stream) const {
  const LanguageModel& m = sizes();
  const int64_t rows = block.rows;
  float* const x = x_.floats();
  embed(
      {block, model_->embeddings(), model_->norm(), model_->rates(), n_q_, m.entries(), m.dim(), x},
      stream);
  int64_t index = 0;
  for (const DeviceLmLayer& layer : model_->layers()) {
    const LmAttention attention = {block,     run_rows,       qkv_.floats(),       layer.qkv.bias,
                                   index,     m.heads(),      m.dim() / m.heads(), m.past(),
                                   m.scale(), mixed_.floats()};
    multiply(layer.qkv, kQkv, rows, stream);
    attend(attention, stream);
    remember(attention, stream);
    multiply(layer.out, kOut, rows, stream);
    layer_norm(y_.floats(), layer.norm1, rows, m.dim(), x, stream);
    multiply(layer.up, kUp, rows, stream);
    gelu(hidden_.floats(), rows * layer.up.n, stream);
    multiply(layer.down, kDown, rows, stream);
    layer_norm(y_.floats(), layer.norm2, rows, m.dim(), x, stream);
    ++index;
  }
  multiply(model_->heads(n_q_), kHeads, rows, stream);
  softmax(distributions(rows), stream);
}

}  // namespace encodec_fast::cuda
