// One step of an LSTM layer for all streams: the chains over h go on where those over the input
// ended, and the thread that has a unit's four gates makes its step at once.
#include "cuda/kernels.h"
#include "cuda/launch.h"
#include "kernels/elements.h"

namespace encodec_fast::cuda {
namespace {

using namespace EF_ISA;

constexpr int kDepth = 32;  // of a tile, in k
constexpr int kUnits = 8;   // of a block: few, so that there are many blocks

// Streams of a block, and of a thread.
template <int kStreams_, int kEach_>
struct Shape {
  static constexpr int kStreams = kStreams_, kEach = kEach_;
  static constexpr int kThreads = kStreams / kEach * kUnits;
  static constexpr int kWeightReads = kDepth * kUnits / kThreads;
  static constexpr int kHiddenReads = kDepth * kStreams / kThreads;
  static constexpr int kApart = kThreads / kDepth;  // streams between a thread's reads of h
  static_assert(kThreads % kDepth == 0, "a thread reads one k of all its streams");
  struct Tiles {
    float4 weight[2][kDepth][kUnits];
    float hidden[2][kStreams][kDepth + 4];  // keeps vectors aligned, streams in different banks
  };
};

template <typename S>
class Block {
 public:
  __device__ Block(const LstmStep& s, typename S::Tiles& tiles)
      : s_(s),
        tiles_(tiles),
        thread_(static_cast<int>(threadIdx.x)),
        width_(static_cast<int>(s.hidden)) {
    const int64_t across = (s.hidden + kUnits - 1) / kUnits;
    unit_ = static_cast<int>(blockIdx.x % across) * kUnits;
    first_ = blockIdx.x / across * S::kStreams;
#pragma unroll
    for (int u = 0; u < S::kHiddenReads; ++u) {
      const int64_t lane = first_ + thread_ / kDepth + u * S::kApart;
      hidden_[u] = runs(lane) ? s.parts[lane].hidden + s.step * s.hidden : nullptr;
    }
  }

  // The next tile, to registers. What a stream without this step would read is left as it is: its
  // sums are dropped.
  __device__ void read(int k) {
#pragma unroll
    for (int u = 0; u < S::kWeightReads; ++u) {
      const int i = thread_ + u * S::kThreads;
      const int row = k + i / kUnits;
      const int column = unit_ + i % kUnits;
      if (row < width_ && column < width_) w_[u] = s_.recurrent[int64_t{row} * width_ + column];
    }
    const int row = k + thread_ % kDepth;
#pragma unroll
    for (int u = 0; u < S::kHiddenReads; ++u) {
      if (row < width_ && hidden_[u] != nullptr) h_[u] = hidden_[u][row];
    }
  }

  __device__ void write(int buffer) {
#pragma unroll
    for (int u = 0; u < S::kWeightReads; ++u) {
      const int i = thread_ + u * S::kThreads;
      tiles_.weight[buffer][i / kUnits][i % kUnits] = w_[u];
    }
#pragma unroll
    for (int u = 0; u < S::kHiddenReads; ++u)
      tiles_.hidden[buffer][thread_ / kDepth + u * S::kApart][thread_ % kDepth] = h_[u];
  }

  __device__ void start() {
#pragma unroll
    for (int i = 0; i < S::kEach; ++i) {
      if (!owns(i)) continue;
      const float* gates = part(i).gates + s_.step * 4 * s_.hidden + unit();
#pragma unroll
      for (int g = 0; g < 4; ++g) sum_[i][g] = gates[g * s_.hidden];
    }
  }

  __device__ void multiply(int buffer, int depth) {
    if (depth == kDepth) {
#pragma unroll
      for (int k = 0; k < kDepth; k += 4) four_steps(buffer, k);
    } else {
#pragma unroll 1
      for (int k = 0; k < depth; ++k) {
        float h[S::kEach];
#pragma unroll
        for (int i = 0; i < S::kEach; ++i) h[i] = tiles_.hidden[buffer][mine() + i][k];
        step(tiles_.weight[buffer][k][thread_ % kUnits], h);
      }
    }
  }

  __device__ void finish() {
#pragma unroll
    for (int i = 0; i < S::kEach; ++i) {
      if (!owns(i)) continue;
      const LstmPart& p = part(i);
      const Cell next = EF_ISA::lstm_step(Vec{sum_[i][0]}, Vec{sum_[i][1]}, Vec{sum_[i][2]},
                                          Vec{sum_[i][3]}, load(p.cell + unit()));
      store(p.cell + unit(), next.cell);
      store(p.hidden + (s_.step + 1) * s_.hidden + unit(), next.out);
    }
  }

 private:
  __device__ int unit() const { return unit_ + thread_ % kUnits; }
  __device__ int mine() const { return thread_ / kUnits * S::kEach; }
  __device__ const LstmPart& part(int i) const { return s_.parts[first_ + mine() + i]; }
  // Whether a stream has this step, and whether the i-th stream of this thread has.
  __device__ bool runs(int64_t lane) const {
    return lane < s_.part_count && s_.step < s_.parts[lane].rows;
  }
  __device__ bool owns(int i) const { return unit() < width_ && runs(first_ + mine() + i); }

  __device__ void four_steps(int buffer, int k) {
    float4 h[S::kEach];
#pragma unroll
    for (int i = 0; i < S::kEach; ++i)
      h[i] = *reinterpret_cast<const float4*>(&tiles_.hidden[buffer][mine() + i][k]);
    float one[S::kEach];
#pragma unroll
    for (int i = 0; i < S::kEach; ++i) one[i] = h[i].x;
    step(tiles_.weight[buffer][k][thread_ % kUnits], one);
#pragma unroll
    for (int i = 0; i < S::kEach; ++i) one[i] = h[i].y;
    step(tiles_.weight[buffer][k + 1][thread_ % kUnits], one);
#pragma unroll
    for (int i = 0; i < S::kEach; ++i) one[i] = h[i].z;
    step(tiles_.weight[buffer][k + 2][thread_ % kUnits], one);
#pragma unroll
    for (int i = 0; i < S::kEach; ++i) one[i] = h[i].w;
    step(tiles_.weight[buffer][k + 3][thread_ % kUnits], one);
  }

  __device__ void step(float4 w, const float* h) {
#pragma unroll
    for (int i = 0; i < S::kEach; ++i) {
      sum_[i][0] = fma(Vec{h[i]}, Vec{w.x}, Vec{sum_[i][0]}).v;
      sum_[i][1] = fma(Vec{h[i]}, Vec{w.y}, Vec{sum_[i][1]}).v;
      sum_[i][2] = fma(Vec{h[i]}, Vec{w.z}, Vec{sum_[i][2]}).v;
      sum_[i][3] = fma(Vec{h[i]}, Vec{w.w}, Vec{sum_[i][3]}).v;
    }
  }

  const LstmStep& s_;
  typename S::Tiles& tiles_;
  int thread_, width_;
  int unit_;       // the block's first
  int64_t first_;  // stream of the block
  const float* hidden_[S::kHiddenReads];
  float4 w_[S::kWeightReads] = {};
  float h_[S::kHiddenReads] = {};
  float sum_[S::kEach][4] = {};
};

template <typename S>
__global__ void __launch_bounds__(S::kThreads) step(LstmStep s) {
  Block<S> block(s, *shared_memory<typename S::Tiles>());
  block.start();
  block.read(0);
  block.write(0);
  __syncthreads();
  const int width = static_cast<int>(s.hidden);
  int buffer = 0;
  for (int k = 0; k < width; k += kDepth, buffer ^= 1) {
    const bool more = k + kDepth < width;
    if (more) block.read(k + kDepth);  // arrives while the tile before is multiplied
    block.multiply(buffer, more ? kDepth : width - k);
    if (more) block.write(buffer ^ 1);
    __syncthreads();
  }
  block.finish();
}

template <typename S>
void run(const LstmStep& s, cudaStream_t stream) {
  const int64_t across = (s.hidden + kUnits - 1) / kUnits;
  const int64_t down = (s.part_count + S::kStreams - 1) / S::kStreams;
  launch(step<S>, across * down, S::kThreads, sizeof(typename S::Tiles), stream, s);
}

}  // namespace

void lstm_step(const LstmStep& s, cudaStream_t stream) {
  if (s.part_count > 128) return run<Shape<64, 4>>(s, stream);
  if (s.part_count > 8) return run<Shape<32, 2>>(s, stream);
  run<Shape<8, 1>>(s, stream);
}

}  // namespace encodec_fast::cuda
