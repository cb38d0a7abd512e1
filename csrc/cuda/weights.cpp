#include "cuda/weights.h"

#include <algorithm>
#include <cstddef>
#include <cstring>

#include "kernels/gemm.h"

namespace encodec_fast::cuda {
namespace {

constexpr size_t kAligned = 64;  // floats

// Floats on their way to the device, each array aligned.
class Pack {
 public:
  // Returns where `count` zeros begin.
  size_t room(size_t count) {
    const size_t at = values_.size();
    values_.resize(at + (count + kAligned - 1) / kAligned * kAligned);
    return at;
  }
  size_t add(const float* from, size_t count) {
    const size_t at = room(count);
    std::copy_n(from, count, values_.begin() + static_cast<std::ptrdiff_t>(at));
    return at;
  }
  float& operator[](size_t at) { return values_[at]; }

  void upload(int device, DeviceMemory& memory) const {
    Queue queue(device);
    memory.reserve(values_.size() * sizeof(float));
    queue.upload(memory.bytes(), values_.data(), values_.size() * sizeof(float));
    queue.finish();
  }

 private:
  std::vector<float> values_;
};

// The weight in row i and column j.
float element(const Matrix& m, int64_t i, int64_t j) {
  const int64_t column = j % kPanel;
  if (!m.bfloat16) return m.panels[(j - column) * m.k + i * kPanel + column];
  const int64_t depth = m.k + m.k % 2;
  const uint32_t bits =
      static_cast<uint32_t>(
          m.panels16[(j - column) * depth + i / 2 * 2 * kPanel + 2 * column + i % 2])
      << 16;
  float x;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}

size_t pack_matrix(Pack& pack, const Matrix& m) {
  const size_t count = static_cast<size_t>(m.k * whole_panels(m.n));
  if (!m.bfloat16) return pack.add(m.panels, count);
  const size_t at = pack.room(count);
  for (int64_t j = 0; j < m.n; ++j) {
    const int64_t column = j % kPanel;
    for (int64_t i = 0; i < m.k; ++i)
      pack[at + static_cast<size_t>((j - column) * m.k + i * kPanel + column)] = element(m, i, j);
  }
  return at;
}

size_t pack_recurrent(Pack& pack, const Matrix& m) {
  const size_t at = pack.room(static_cast<size_t>(m.k * m.n));
  const int64_t hidden = m.n / 4;
  for (int64_t i = 0; i < m.k; ++i) {
    for (int64_t j = 0; j < m.n; ++j)
      pack[at + static_cast<size_t>((i * hidden + j % hidden) * 4 + j / hidden)] = element(m, i, j);
  }
  return at;
}

int multiprocessors_of(int device) { return device_info(device).multiprocessors; }

}  // namespace

DeviceGraph::DeviceGraph(std::shared_ptr<const Graph> graph, int device)
    : graph_(std::move(graph)), device_(device), multiprocessors_(multiprocessors_of(device)) {
  require_code();  // now, rather than when the first kernel is started
  struct Places {
    size_t panels, bias, recurrent, scale, offset;
  };
  Pack pack;
  std::vector<Places> places;
  for (const Op& op : graph_->ops()) {
    Places p = {};
    p.panels = pack_matrix(pack, op.weight);
    p.bias = pack.room(static_cast<size_t>(whole_panels(op.weight.n)));
    std::memcpy(&pack[p.bias], op.weight.bias.data(), op.weight.bias.size() * sizeof(float));
    if (op.kind == OpKind::kLstm) p.recurrent = pack_recurrent(pack, op.recurrent);
    p.scale = pack.add(op.norm.scale.data(), op.norm.scale.size());
    p.offset = pack.add(op.norm.offset.data(), op.norm.offset.size());
    places.push_back(p);
  }
  pack.upload(device, memory_);
  for (size_t i = 0; i < places.size(); ++i) {
    const Op& op = graph_->ops()[i];
    const float* base = memory_.floats();
    OpWeights w = {base + places[i].panels, base + places[i].bias, nullptr, nullptr, nullptr};
    if (op.kind == OpKind::kLstm)
      w.recurrent = reinterpret_cast<const float4*>(base + places[i].recurrent);
    if (!op.norm.scale.empty()) {
      w.norm_scale = base + places[i].scale;
      w.norm_offset = base + places[i].offset;
    }
    ops_.push_back(w);
  }
}

DeviceBooks::DeviceBooks(const Codebooks& books, int device)
    : n_q_(books.n_q()), device_(device), multiprocessors_(multiprocessors_of(device)) {
  require_code();
  const RvqCodebooks b = books.view();
  Pack pack;
  const size_t panels = pack.add(b.panels, static_cast<size_t>(n_q_ * b.panel_floats));
  const size_t entries = pack.add(b.entries, static_cast<size_t>(n_q_ * b.size * b.dim));
  const size_t half_norm = pack.add(b.half_norm, static_cast<size_t>(n_q_ * b.padded_size));
  pack.upload(device, memory_);
  const float* base = memory_.floats();
  view_ = {base + panels, base + entries, base + half_norm, b.padded_size, b.size, b.dim};
}

}  // namespace encodec_fast::cuda
