// The operations of an executor: which kernels run, on which rows.
#include <algorithm>

#include "cuda/executor.h"
#include "kernels/norm.h"

namespace encodec_fast::cuda {
namespace {

bool aligned(const void* p) { return reinterpret_cast<uintptr_t>(p) % 16 == 0; }

// Blocks of a reduction over `count` elements.
int64_t reduction_blocks(int64_t count) { return (count + kReductionBlock - 1) / kReductionBlock; }

}  // namespace

// The scratch of all operations, before the tape holds addresses in it.
void Executor::size_scratch() {
  int64_t product = 0, gates = 0, hidden = 0, moments = 0, norms = 0;
  for (int i = 0; i < ops(); ++i) {
    const Op& o = op(i);
    int64_t steps = 0, values = 0, blocks = 0;
    for (size_t w = 0; w < count(); ++w) {
      const int64_t n = geometry_.product_rows(i, block(w)) * o.weight.n;
      steps += rows(i + 1, w);
      if (geometry_.finishes(i, block(w))) values += n;
      blocks += reduction_blocks(n);
    }
    if (o.kind == OpKind::kConvTranspose) product = std::max(product, values);
    if (o.kind == OpKind::kLstm) {
      gates = std::max(gates, steps * 4 * o.out_channels);
      hidden = std::max(hidden, (steps + static_cast<int64_t>(count())) * o.out_channels);
    }
    if (o.norm.scale.empty()) continue;
    moments = std::max(moments, blocks);
    norms = std::max(norms, static_cast<int64_t>(count()) * (1 + o.out_channels));
  }
  product_.reserve(static_cast<size_t>(product) * sizeof(float));
  gates_.reserve(static_cast<size_t>(gates) * sizeof(float));
  hidden_.reserve(static_cast<size_t>(hidden) * sizeof(float));
  moments_.reserve(static_cast<size_t>(moments) * sizeof(Moment));
  norms_.reserve(static_cast<size_t>(norms) * sizeof(float));
}

void Executor::record_op(int index) {
  std::vector<Copy> before;
  std::vector<Copy> after;
  add_history(index + 1, before);
  if (padded(op(index))) add_padding(index, before);
  if (op(index).kind == OpKind::kLstm) {
    record_copies(before);
    record_lstm(index, after);
  } else {
    record_copies(before);
    record_conv(index);
  }
  add_other_forms(index + 1, after);
  add_kept(layout_.plan(index).done, after);
  record_copies(after);
}

void Executor::add_padding(int index, std::vector<Copy>& copies) const {
  const int64_t width = op(index).in_channels;
  for (size_t w = 0; w < count(); ++w) {
    float* const first = body(layout_.plan(index).input, w);
    for (const PadRow& pad : geometry_.padding(index, block(w))) {
      const float* from = pad.zeros ? nullptr : first + pad.source * width;
      copies.push_back({from, first + pad.row * width, width});
    }
  }
}

const float* Executor::input_of(int index, size_t w) const {
  return body(layout_.plan(index).input, w) +
         block(w).input[static_cast<size_t>(index)] * op(index).in_channels;
}

const float* Executor::added(int index, size_t w) const {
  if (op(index).add < 0) return nullptr;
  return body(layout_.plan(index).add, w) +
         block(w).add[static_cast<size_t>(index)] * op(index).out_channels;
}

// Parts without rows are dropped here.
void Executor::record_product(std::vector<Part> parts, const Matrix& weight, int64_t a_stride,
                              int index) {
  parts.erase(std::remove_if(parts.begin(), parts.end(), [](const Part& p) { return p.m == 0; }),
              parts.end());
  Product g = {};
  g.reads_vectors = a_stride % 4 == 0 && weight.k % 4 == 0;
  g.writes_vectors = weight.n % 4 == 0;
  for (Part& part : parts) {
    part.first = g.rows;
    g.rows += part.m;
    g.reads_vectors = g.reads_vectors && aligned(part.a);
    g.writes_vectors =
        g.writes_vectors && aligned(part.add) && aligned(part.out) && aligned(part.elu);
  }
  if (g.rows == 0) return;
  g.part_count = static_cast<int64_t>(parts.size());
  g.a_stride = a_stride;
  g.n = weight.n;
  g.k = weight.k;
  g.panels = graph_->weights(index).panels;
  g.bias = graph_->weights(index).bias;
  const size_t place = tape_.table(parts);
  tape_.add([this, g, place](cudaStream_t stream) {
    Product product = g;
    product.parts = tape_.at<Part>(place);
    gemm(product, graph_->multiprocessors(), stream);
  });
}

void Executor::record_conv(int index) {
  const Op& o = op(index);
  const bool transposed = o.kind == OpKind::kConvTranspose;
  std::vector<Part> parts;
  std::vector<const float*> products;  // per block; null where the product is final
  float* scratch = product_.floats();
  for (size_t w = 0; w < count(); ++w) {
    const Outputs to = outputs(index + 1, w);
    const int64_t m = geometry_.product_rows(index, block(w));
    Part part = {input_of(index, w), added(index, w), to.out, to.elu, m, 0};
    products.push_back(nullptr);
    if (geometry_.finishes(index, block(w))) {
      float* product = to.out != nullptr ? to.out : to.elu;
      if (transposed) {
        product = scratch;
        scratch += m * o.weight.n;
      }
      part = {part.a, nullptr, product, nullptr, m, 0};
      products.back() = product;
    }
    parts.push_back(part);
  }
  record_product(std::move(parts), o.weight, (transposed ? 1 : o.stride) * o.in_channels, index);
  if (o.norm.scale.empty()) return record_trim(index, products);
  record_norm(index, products);
}

void Executor::record_trim(int index, const std::vector<const float*>& products) {
  const int64_t width = op(index).out_channels;
  std::vector<Elements> parts;
  for (size_t w = 0; w < count(); ++w) {
    if (products[w] == nullptr) continue;
    const Outputs to = outputs(index + 1, w);
    const float* from = products[w] + (block(w).fresh ? op(index).trim_left : 0) * width;
    parts.push_back({from, added(index, w), to.out, to.elu, rows(index + 1, w) * width});
  }
  record_activation(parts);
}

// Moments count the rows that are trimmed; then norm, trimming and addition in one pass.
void Executor::record_norm(int index, const std::vector<const float*>& products) {
  const Op& o = op(index);
  std::vector<NormPart> whole;
  std::vector<Normalized> parts;
  Moments m = {};
  int64_t longest = 0;
  for (size_t w = 0; w < count(); ++w) {
    const Outputs to = outputs(index + 1, w);
    float* norm = norms_.floats() + static_cast<int64_t>(w) * (1 + o.out_channels);
    const int64_t elements = geometry_.product_rows(index, block(w)) * o.weight.n;
    const int64_t count = rows(index + 1, w) * o.out_channels;
    whole.push_back({products[w], elements, m.blocks, norm});
    m.blocks += reduction_blocks(elements);
    const float* from = products[w] + (block(w).fresh ? o.trim_left : 0) * o.out_channels;
    parts.push_back({from, norm, added(index, w), to.out, to.elu, count});
    longest = std::max(longest, count);
  }
  const OpWeights& weights = graph_->weights(index);
  m.part_count = static_cast<int64_t>(whole.size());
  m.channels = o.out_channels;
  m.moments = reinterpret_cast<Moment*>(moments_.bytes());
  m.scale = weights.norm_scale;
  m.eps = o.norm.eps;
  const size_t place = tape_.table(whole);
  const size_t parts_place = tape_.table(parts);
  tape_.add(
      [this, m, place](cudaStream_t stream) {
        Moments moments_of = m;
        moments_of.parts = tape_.at<NormPart>(place);
        moments(moments_of, stream);
      },
      2);
  const int64_t part_count = m.part_count;
  const int64_t channels = o.out_channels;
  const float* offset = weights.norm_offset;
  tape_.add([this, parts_place, part_count, longest, offset, channels](cudaStream_t stream) {
    normalize(tape_.at<Normalized>(parts_place), part_count, longest, offset, channels, stream);
  });
}

// h of every step lies behind that of the step before, the first one behind the stream's state.
void Executor::record_lstm(int index, std::vector<Copy>& after) {
  const Op& o = op(index);
  const int64_t width = o.out_channels;
  const State& state = states_[static_cast<size_t>(index)];
  std::vector<Part> products;
  std::vector<LstmPart> parts;
  std::vector<Copy> before;
  std::vector<Elements> results;
  float* gates = gates_.floats();
  float* hidden = hidden_.floats();
  for (size_t w = 0; w < count(); ++w) {
    const int64_t steps = rows(index + 1, w);
    float* const h = state.hidden.floats() + blocks_[w].lane * width;
    float* const cell = state.cell.floats() + blocks_[w].lane * width;
    const Outputs to = outputs(index + 1, w);
    products.push_back({input_of(index, w), nullptr, gates, nullptr, steps, 0});
    parts.push_back({gates, hidden, cell, steps});
    before.push_back({block(w).fresh ? nullptr : h, hidden, width});
    if (block(w).fresh) before.push_back({nullptr, cell, width});
    after.push_back({hidden + steps * width, h, width});
    results.push_back({hidden + width, added(index, w), to.out, to.elu, steps * width});
    gates += steps * 4 * width;
    hidden += (steps + 1) * width;
  }
  record_copies(before);
  record_product(std::move(products), o.weight, o.in_channels, index);
  record_steps(index, parts);
  record_activation(results);
}

void Executor::record_steps(int index, const std::vector<LstmPart>& parts) {
  int64_t steps = 0;
  for (const LstmPart& part : parts) steps = std::max(steps, part.rows);
  if (steps == 0) return;
  const size_t place = tape_.table(parts);
  const LstmStep s = {nullptr, static_cast<int64_t>(parts.size()), 0, op(index).out_channels,
                      graph_->weights(index).recurrent};
  tape_.add(
      [this, s, place, steps](cudaStream_t stream) {
        LstmStep step = s;
        step.parts = tape_.at<LstmPart>(place);
        for (step.step = 0; step.step < steps; ++step.step) lstm_step(step, stream);
      },
      steps);
}

}  // namespace encodec_fast::cuda
