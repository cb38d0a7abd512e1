// The language model between its products and its attention: input, layer norm, GELU.
#include "cuda/launch.h"
#include "cuda/lm_kernels.h"
#include "cuda/warp.h"
#include "kernels/elements.h"
#include "kernels/position.h"

namespace encodec_fast::cuda {
namespace {

using namespace EF_ISA;

constexpr int kThreads = 256;
constexpr int kRows = kThreads / kFoldLanes;  // of a block: half a warp each

__device__ inline int64_t row_of_thread() {
  return static_cast<int64_t>(blockIdx.x) * kRows + static_cast<int64_t>(threadIdx.x) / kFoldLanes;
}

// The lanes that the last elements lack take `neutral`, as on the CPU.
template <typename Add>
__device__ float reduce(const float* x, int64_t count, float neutral, Add add) {
  const int64_t lane = threadIdx.x % kFoldLanes;
  Vec sum = {0.0f};
  for (int64_t i = 0; i < count; i += kFoldLanes)
    sum = add(sum, Vec{i + lane < count ? x[i + lane] : neutral});
  return fold_sum(sum.v);
}

// Layer norm of x [dim]: put(c, y) takes this thread's channels. The threads of a warp call it
// together; those of a row that there is not have a count of 0.
template <typename Put>
__device__ void norm_row(const float* x, int64_t count, const DeviceNorm& norm, int64_t dim,
                         Put put) {
  const Vec channels = {static_cast<float>(dim)};
  const Vec sum = {reduce(x, count, 0.0f, [](Vec total, Vec value) { return total + value; })};
  const Vec mean = sum / channels;
  const Vec squares = {reduce(x, count, mean.v, [mean](Vec total, Vec value) {
    const Vec d = value - mean;
    return fma(d, d, total);
  })};
  const Vec factor = Vec{1.0f} / square_root(squares / channels + Vec{kLmEpsilon});
  for (int64_t c = threadIdx.x % kFoldLanes; c < count; c += kFoldLanes)
    put(c, normed(load(x + c), mean, load(norm.scale + c) * factor, load(norm.offset + c)));
}

// The embeddings of the step before, one codebook after the other; this thread's channels.
__device__ void embed_row(const LmInput& g, const LmRun& run, int64_t row, float* out) {
  const bool first = run.entry + row == 1;  // of the stream: there is no step before
  const uint16_t* codes = run.codes + row * g.n_q;
  for (int64_t c = threadIdx.x % kFoldLanes; c < g.dim; c += kFoldLanes) {
    const float* table = g.embeddings + c;
    Vec sum = {0.0f};
    for (int64_t k = 0; k < g.n_q; ++k, table += (g.entries + 1) * g.dim) {
      const Vec x = load(table + (first ? 0 : codes[k] + 1) * g.dim);
      sum = k == 0 ? x : sum + x;
    }
    store(out + c, sum);
  }
}

__global__ void __launch_bounds__(kThreads) embed_rows(LmInput g) {
  const int64_t row = row_of_thread();
  float* const out = g.out + row * g.dim;
  int64_t position = 0;
  int64_t count = 0;
  if (row < g.block.rows) {
    const LmRun& run = g.block.runs[part_of(g.block.runs, g.block.count, row)];
    if (row - run.first < run.rows) {
      embed_row(g, run, row - run.first, out);
      position = run.entry + row - run.first - 1;
      count = g.dim;
    }
  }
  const int64_t half = g.dim / 2;
  norm_row(out, count, g.norm, g.dim, [&](int64_t c, Vec y) {
    const double rate = g.rates[c < half ? c : c - half];
    const Turn at = turn(times(static_cast<double>(position), rate));
    store(out + c, y + Vec{static_cast<float>(c < half ? at.cosine : at.sine)});
  });
}

__global__ void __launch_bounds__(kThreads)
    norm_rows(const float* x, DeviceNorm norm, int64_t rows, int64_t dim, float* out) {
  const int64_t row = row_of_thread();
  norm_row(x + row * dim, row < rows ? dim : 0, norm, dim,
           [&](int64_t c, Vec y) { store(out + row * dim + c, y); });
}

__global__ void __launch_bounds__(kThreads) gelu_all(float* x, int64_t count, int64_t blocks) {
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x; i < count;
       i += blocks * kThreads)
    store(x + i, gelu(load(x + i)));
}

}  // namespace

void embed(const LmInput& g, cudaStream_t stream) {
  launch(embed_rows, (g.block.rows + kRows - 1) / kRows, kThreads, 0, stream, g);
}

void layer_norm(const float* x, const DeviceNorm& norm, int64_t rows, int64_t dim, float* out,
                cudaStream_t stream) {
  launch(norm_rows, (rows + kRows - 1) / kRows, kThreads, 0, stream, x, norm, rows, dim, out);
}

void gelu(float* x, int64_t count, cudaStream_t stream) {
  const int64_t blocks = (count + 4 * kThreads - 1) / (4 * kThreads);
  launch(gelu_all, blocks, kThreads, 0, stream, x, count, blocks);
}

}  // namespace encodec_fast::cuda
