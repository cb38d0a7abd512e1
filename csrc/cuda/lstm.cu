// One step of an LSTM layer for all streams: the chains over h go on where those over the input
// ended, and the thread that has a unit's four gates makes its step at once.
#include "cuda/kernels.h"
#include "cuda/launch.h"
#include "kernels/elements.h"

namespace encodec_fast::cuda {
namespace {

using namespace EF_ISA;

constexpr int kDepth = 32;  // of a tile, in k
constexpr int kUnits = 16;  // of a block

// Streams of a block, and of a thread.
template <int kLanes_, int kEach_>
struct Shape {
  static constexpr int kStreams = kLanes_, kEach = kEach_;
  static constexpr int kThreads = kStreams / kEach * kUnits;
  struct Tiles {
    float4 weight[kDepth][kUnits];
    float hidden[kDepth][kStreams + 4];
  };
};

template <typename S>
__device__ void read_tiles(const LstmStep& s, int64_t k, int64_t stream, int64_t unit,
                           typename S::Tiles& tiles) {
  const int thread = static_cast<int>(threadIdx.x);
  for (int i = thread; i < kDepth * kUnits; i += S::kThreads) {
    const int64_t row = k + i / kUnits;
    const int64_t column = unit + i % kUnits;
    if (row < s.hidden && column < s.hidden)
      tiles.weight[i / kUnits][i % kUnits] = s.recurrent[row * s.hidden + column];
  }
  for (int i = thread; i < kDepth * S::kStreams; i += S::kThreads) {
    const int64_t lane = stream + i / kDepth;
    const int64_t row = k + i % kDepth;
    if (lane >= s.part_count || row >= s.hidden) continue;
    const LstmPart& part = s.parts[lane];
    if (s.step < part.rows)
      tiles.hidden[i % kDepth][i / kDepth] = part.hidden[s.step * s.hidden + row];
  }
}

template <typename S>
__global__ void __launch_bounds__(S::kThreads) step(LstmStep s) {
  typename S::Tiles& tiles = *shared_memory<typename S::Tiles>();
  const int thread = static_cast<int>(threadIdx.x);
  const int64_t across = (s.hidden + kUnits - 1) / kUnits;
  const int64_t first_unit = blockIdx.x % across * kUnits;
  const int64_t first_stream = blockIdx.x / across * S::kStreams;
  const int64_t unit = first_unit + thread % kUnits;
  const int mine = thread / kUnits * S::kEach;
  // Whether the i-th stream of this thread has this step.
  const auto runs = [&](int i) {
    const int64_t lane = first_stream + mine + i;
    return unit < s.hidden && lane < s.part_count && s.step < s.parts[lane].rows;
  };
  float sum[S::kEach][4] = {};
#pragma unroll
  for (int i = 0; i < S::kEach; ++i) {
    if (!runs(i)) continue;
    const float* gates = s.parts[first_stream + mine + i].gates + s.step * 4 * s.hidden + unit;
#pragma unroll
    for (int g = 0; g < 4; ++g) sum[i][g] = gates[g * s.hidden];
  }
  for (int64_t k = 0; k < s.hidden; k += kDepth) {
    read_tiles<S>(s, k, first_stream, first_unit, tiles);
    __syncthreads();
    const int depth = s.hidden - k < kDepth ? static_cast<int>(s.hidden - k) : kDepth;
#pragma unroll 8
    for (int d = 0; d < depth; ++d) {
      const float4 w = tiles.weight[d][thread % kUnits];
#pragma unroll
      for (int i = 0; i < S::kEach; ++i) {
        const Vec h = {tiles.hidden[d][mine + i]};
        sum[i][0] = fma(h, Vec{w.x}, Vec{sum[i][0]}).v;
        sum[i][1] = fma(h, Vec{w.y}, Vec{sum[i][1]}).v;
        sum[i][2] = fma(h, Vec{w.z}, Vec{sum[i][2]}).v;
        sum[i][3] = fma(h, Vec{w.w}, Vec{sum[i][3]}).v;
      }
    }
    __syncthreads();
  }
#pragma unroll
  for (int i = 0; i < S::kEach; ++i) {
    if (!runs(i)) continue;
    const LstmPart& part = s.parts[first_stream + mine + i];
    const Cell next = EF_ISA::lstm_step(Vec{sum[i][0]}, Vec{sum[i][1]}, Vec{sum[i][2]},
                                        Vec{sum[i][3]}, load(part.cell + unit));
    store(part.cell + unit, next.cell);
    store(part.hidden + (s.step + 1) * s.hidden + unit, next.out);
  }
}

template <typename S>
void run(const LstmStep& s, cudaStream_t stream) {
  const int64_t across = (s.hidden + kUnits - 1) / kUnits;
  const int64_t down = (s.part_count + S::kStreams - 1) / S::kStreams;
  launch(step<S>, across * down, S::kThreads, sizeof(typename S::Tiles), stream, s);
}

}  // namespace

void lstm_step(const LstmStep& s, cudaStream_t stream) {
  if (s.part_count > 32) return run<Shape<64, 4>>(s, stream);
  run<Shape<8, 1>>(s, stream);
}

}  // namespace encodec_fast::cuda
