#include "cuda/weights.h"

#include <cstddef>
#include <cstring>

#include "cuda/pack.h"

namespace encodec_fast::cuda {
namespace {

size_t pack_recurrent(Pack& pack, const Matrix& m) {
  const size_t at = pack.room(static_cast<size_t>(m.k * m.n));
  const int64_t hidden = m.n / 4;
  for (int64_t i = 0; i < m.k; ++i) {
    for (int64_t j = 0; j < m.n; ++j)
      pack[at + static_cast<size_t>((i * hidden + j % hidden) * 4 + j / hidden)] = element(m, i, j);
  }
  return at;
}

}  // namespace

DeviceGraph::DeviceGraph(std::shared_ptr<const Graph> graph, int device)
    : graph_(std::move(graph)),
      device_(device),
      multiprocessors_(device_info(device).multiprocessors) {
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
    : n_q_(books.n_q()), device_(device), multiprocessors_(device_info(device).multiprocessors) {
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
