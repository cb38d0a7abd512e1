// Group norm: moments in the fixed shape of docs/determinism.md, then one pass over the values.
#include "cuda/kernels.h"
#include "cuda/launch.h"
#include "kernels/elements.h"
#include "kernels/norm.h"

namespace encodec_fast::cuda {
namespace {

using namespace EF_ISA;

constexpr int kFold = 16;    // lanes of a reduction, one thread each
constexpr int kGroups = 16;  // reduction blocks of a thread block
constexpr int kThreads = kFold * kGroups;

// The lanes of each group, folded 8, 4, 2, 1. All threads of the block take part.
__device__ float fold(float (*lanes)[kFold], float mine) {
  const int group = static_cast<int>(threadIdx.x) / kFold;
  const int lane = static_cast<int>(threadIdx.x) % kFold;
  lanes[group][lane] = mine;
  __syncthreads();
  for (int width = kFold / 2; width > 0; width /= 2) {
    float sum = 0.0f;
    if (lane < width) sum = (Vec{lanes[group][lane]} + Vec{lanes[group][lane + width]}).v;
    __syncthreads();
    if (lane < width) lanes[group][lane] = sum;
    __syncthreads();
  }
  const float total = lanes[group][0];
  __syncthreads();
  return total;
}

// The lanes that the last row of a block lacks take `neutral`, as on the CPU.
template <typename Add>
__device__ float reduce(const float* x, int64_t count, float neutral, float (*lanes)[kFold],
                        Add add) {
  const int64_t lane = threadIdx.x % kFold;
  Vec sum = {0.0f};
  for (int64_t i = 0; i < count; i += kFold)
    sum = add(sum, Vec{i + lane < count ? x[i + lane] : neutral});
  return fold(lanes, sum.v);
}

__global__ void __launch_bounds__(kThreads) reduce_blocks(Moments m) {
  auto* lanes = shared_memory<float[kFold]>();
  const int64_t block =
      static_cast<int64_t>(blockIdx.x) * kGroups + static_cast<int64_t>(threadIdx.x) / kFold;
  const float* x = nullptr;
  int64_t count = 0;  // groups without a block fold zeros
  if (block < m.blocks) {
    const NormPart& part = m.parts[part_of(m.parts, m.part_count, block)];
    const int64_t begin = (block - part.first) * kReductionBlock;
    x = part.x + begin;
    count = part.count - begin < kReductionBlock ? part.count - begin : kReductionBlock;
  }
  const float sum =
      reduce(x, count, 0.0f, lanes, [](Vec total, Vec value) { return total + value; });
  const Vec mean = Vec{sum} / Vec{static_cast<float>(count)};
  const float squares = reduce(x, count, mean.v, lanes, [mean](Vec total, Vec value) {
    const Vec d = value - mean;
    return fma(d, d, total);
  });
  if (count > 0 && threadIdx.x % kFold == 0) m.moments[block] = {sum, mean.v, squares};
}

constexpr int kCombine = 128;  // threads; moments at once

// Calls add(moment, its elements) for the blocks of a part in index order, on the first thread.
template <typename Add>
__device__ void in_order(const Moments& m, const NormPart& part, Moment* held, Add add) {
  const int64_t blocks = (part.count + kReductionBlock - 1) / kReductionBlock;
  for (int64_t first = 0; first < blocks; first += kCombine) {
    const int64_t left = blocks - first < kCombine ? blocks - first : kCombine;
    if (threadIdx.x < left) held[threadIdx.x] = m.moments[part.first + first + threadIdx.x];
    __syncthreads();
    if (threadIdx.x == 0) {
      for (int64_t i = 0; i < left; ++i) {
        const int64_t behind = part.count - (first + i) * kReductionBlock;
        add(held[i], behind < kReductionBlock ? behind : kReductionBlock);
      }
    }
    __syncthreads();
  }
}

// Rounded each, whatever flags this is compiled with.
#ifdef __CUDA_ARCH__
__device__ inline double plus(double a, double b) { return __dadd_rn(a, b); }
__device__ inline double times(double a, double b) { return __dmul_rn(a, b); }
#else
__device__ inline double plus(double a, double b) { return a + b; }
__device__ inline double times(double a, double b) { return a * b; }
#endif

// In double, as engine/moments.h; nothing here is fused.
__global__ void __launch_bounds__(kCombine) combine(Moments m) {
  auto* held = shared_memory<Moment>();
  const NormPart& part = m.parts[blockIdx.x];
  const double count = static_cast<double>(part.count);
  double sum = 0.0;
  in_order(m, part, held,
           [&](const Moment& b, int64_t) { sum = plus(sum, static_cast<double>(b.sum)); });
  const float mean = static_cast<float>(sum / count);
  const double center = static_cast<double>(mean);
  double squares = 0.0;
  in_order(m, part, held, [&](const Moment& b, int64_t n) {
    const double distance = plus(static_cast<double>(b.mean), -center);
    const double between = times(static_cast<double>(n), times(distance, distance));
    squares = plus(squares, plus(static_cast<double>(b.squares), between));
  });
  float& inverse = held[kCombine].sum;
  if (threadIdx.x == 0) {
    const Vec variance = {static_cast<float>(squares / count)};
    inverse = (Vec{1.0f} / square_root(variance + Vec{m.eps})).v;
    part.norm[0] = mean;
  }
  __syncthreads();
  for (int64_t c = threadIdx.x; c < m.channels; c += kCombine)
    part.norm[1 + c] = (Vec{inverse} * Vec{m.scale[c]}).v;
}

constexpr int kWide = 256;

__global__ void __launch_bounds__(kWide) normalize_parts(const Normalized* parts, unsigned blocks,
                                                         const float* offset, unsigned channels) {
  const Normalized part = parts[blockIdx.x / blocks];
  const Vec mean = load(part.norm);
  const unsigned step = blocks * kWide;
  const unsigned first = blockIdx.x % blocks * kWide + threadIdx.x;
  // The channel goes round with the element, without a division each.
  const unsigned turn = step % channels;
  unsigned c = first % channels;
  for (int64_t i = first; i < part.count; i += step) {
    Vec y = normed(load(part.x + i), mean, load(part.norm + 1 + c), load(offset + c));
    if (part.add != nullptr) y = y + load(part.add + i);
    if (part.out != nullptr) store(part.out + i, y);
    if (part.elu != nullptr) store(part.elu + i, elu(y));
    c += turn;
    if (c >= channels) c -= channels;
  }
}

}  // namespace

void moments(const Moments& m, cudaStream_t stream) {
  if (m.part_count == 0) return;
  launch(reduce_blocks, (m.blocks + kGroups - 1) / kGroups, kThreads,
         kGroups * kFold * sizeof(float), stream, m);
  launch(combine, m.part_count, kCombine, (kCombine + 1) * sizeof(Moment), stream, m);
}

void normalize(const Normalized* parts, int64_t part_count, int64_t longest, const float* offset,
               int64_t channels, cudaStream_t stream) {
  if (part_count == 0 || longest == 0) return;
  const unsigned blocks = blocks_for(longest, kWide);
  launch(normalize_parts, blocks * part_count, kWide, 0, stream, parts, blocks, offset,
         static_cast<unsigned>(channels));
}

}  // namespace encodec_fast::cuda
