// Attention of a block's entries over those of their streams. A block of threads has one head of
// one run: all its scores lie in shared memory, keys and values pass through it in tiles.
#include "cuda/launch.h"
#include "cuda/lm_kernels.h"
#include "cuda/warp.h"
#include "kernels/elements.h"

namespace encodec_fast::cuda {
namespace {

using namespace EF_ISA;

constexpr int kTile = 64;         // entries of a tile
constexpr int kChannels = kWarp;  // of a tile
constexpr int kMostRows = 16;     // of a run
constexpr size_t kSharedBytes = 48 << 10;

// kGroups times 64 threads. In the scores, a thread has an entry and every kGroups-th row; in the
// results a channel and every (2 kGroups)-th row; in the softmax, half a warp has a row.
template <int kGroups>
struct Shape {
  static constexpr int kThreads = kGroups * kTile;
  static constexpr int kWarps = kThreads / kWarp;
  static constexpr int kRows = 4 * kGroups;
  static constexpr int kResident = kGroups == 1 ? 10 : 3;  // blocks of a multiprocessor, at least
  struct Tiles {
    float entries[kTile][kChannels + 1];  // keys or values; read across both ways
    float queries[kRows][kChannels + 4];  // read as vectors
    float sums[kRows];
  };
  static_assert(sizeof(Tiles) % sizeof(float4) == 0, "the scores behind it are read as vectors");
};

// Of a row of scores.
EF_BOTH constexpr int64_t stride_of(int64_t rows, int64_t past) {
  return (past + rows + 3) / 4 * 4;
}

constexpr size_t shared_bytes(int64_t rows, int64_t past) {
  const size_t tiles = rows > Shape<1>::kRows ? sizeof(Shape<4>::Tiles) : sizeof(Shape<1>::Tiles);
  return tiles + static_cast<size_t>(rows * stride_of(rows, past)) * sizeof(float);
}

template <int kGroups>
class Head {
 public:
  using S = Shape<kGroups>;

  __device__ Head(const LmAttention& g, const LmRun& run, int64_t head, typename S::Tiles& tiles)
      : g_(g),
        run_(run),
        tiles_(tiles),
        scores_(reinterpret_cast<float*>(&tiles + 1)),
        thread_(static_cast<int>(threadIdx.x)),
        rows_(static_cast<int>(run.rows)),
        stride_(static_cast<int>(stride_of(g.run_rows, g.past))),
        base_(run.entry > g.past ? run.entry - g.past : 0),
        span_(static_cast<int>(run.entry + run.rows - base_)),
        slot_(base_ % g.past) {
    const int64_t dim = g.heads * g.head_dim;
    const int64_t at = head * g.head_dim;
    bias_ = g.bias + at;
    rows_of_block_ = g.qkv + run.first * 3 * dim + at;
    cache_ = run.cache + g.layer * 2 * g.past * dim + at * g.past;
    out_ = g.out + run.first * dim + at;
  }

  // Chains over the channels, from 0; times the scale.
  __device__ void score() {
    const int entry = thread_ % kTile;
    const int group = thread_ / kTile;
    for (int tile = 0; tile < span_; tile += kTile) {
      Vec sum[4] = {{0.0f}, {0.0f}, {0.0f}, {0.0f}};
      for (int64_t c = 0; c < g_.head_dim; c += kChannels) {
        read_queries(c);
        read_entries(1, tile, c);
        __syncthreads();
        multiply(width_at(c), entry, group, sum);
        __syncthreads();
      }
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int row = group + i * kGroups;
        if (row < rows_ && tile + entry < span_)
          scores_[row * stride_ + tile + entry] = (sum[i] * Vec{g_.scale}).v;
      }
    }
    __syncthreads();
  }

  // Scores to terms, and their sums; element 0 of a row is the first entry that it sees.
  __device__ void soften() {
    const int row = thread_ / kFoldLanes;
    const int lane = thread_ % kFoldLanes;
    const int count = row < rows_ ? to(row) - from(row) : 0;
    float* const x = scores_ + (row < rows_ ? row * stride_ + from(row) : 0);
    float most = kLowest;
    for (int i = lane; i < count; i += kFoldLanes) most = x[i] > most ? x[i] : most;
    most = largest(most, kFoldLanes);
    Vec sum = {0.0f};
    for (int i = lane; i < count; i += kFoldLanes) {
      x[i] = term_of(x[i], most);
      sum = sum + Vec{x[i]};
    }
    const float total = fold_sum(sum.v);
    if (lane == 0) tiles_.sums[row] = total;
    __syncthreads();
  }

  // Chains over the entries, from 0, divided by the sum of the terms.
  __device__ void mix() {
    const int channel = thread_ % kChannels;
    const int row = thread_ / kChannels * 2;
    for (int64_t c = 0; c < g_.head_dim; c += kChannels) {
      Vec sum[2] = {{0.0f}, {0.0f}};
      for (int tile = 0; tile < span_; tile += kTile) {
        read_entries(2, tile, c);
        __syncthreads();
        if (row + 1 < rows_) {
          weigh<2>(row, tile, channel, sum);
        } else if (row < rows_) {
          weigh<1>(row, tile, channel, sum);
        }
        __syncthreads();
      }
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        if (row + i < rows_ && channel < width_at(c)) {
          store(out_ + (row + i) * g_.heads * g_.head_dim + c + channel,
                sum[i] / Vec{tiles_.sums[row + i]});
        }
      }
    }
  }

 private:
  // Entries that a row sees, counted from base_.
  __device__ int from(int row) const {
    const int64_t entry = run_.entry + row - g_.past;
    return entry > base_ ? static_cast<int>(entry - base_) : 0;
  }
  __device__ int to(int row) const { return static_cast<int>(run_.entry - base_) + row + 1; }
  __device__ int width_at(int64_t c) const {
    return static_cast<int>(g_.head_dim - c < kChannels ? g_.head_dim - c : kChannels);
  }

  // The chains of an entry and four rows go on through `width` channels.
  __device__ void multiply(int width, int entry, int group, Vec (&sum)[4]) const {
    const float* key = tiles_.entries[entry];
    int j = 0;
    for (; j + 4 <= width; j += 4) {
      const Vec k[4] = {{key[j]}, {key[j + 1]}, {key[j + 2]}, {key[j + 3]}};
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        if (group + i * kGroups >= rows_) continue;
        const float4 q = four(&tiles_.queries[group + i * kGroups][j]);
        sum[i] = fma(Vec{q.x}, k[0], sum[i]);
        sum[i] = fma(Vec{q.y}, k[1], sum[i]);
        sum[i] = fma(Vec{q.z}, k[2], sum[i]);
        sum[i] = fma(Vec{q.w}, k[3], sum[i]);
      }
    }
    for (; j < width; ++j) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        if (group + i * kGroups < rows_)
          sum[i] = fma(Vec{tiles_.queries[group + i * kGroups][j]}, Vec{key[j]}, sum[i]);
      }
    }
  }

  // The chains of kCount rows go on through a tile: four entries at a time that all of them see,
  // those before and behind row by row.
  template <int kCount>
  __device__ void weigh(int row, int tile, int channel, Vec (&sum)[2]) const {
    const int begin = (begin_of(row + kCount - 1, tile) + 3) / 4 * 4;
    const int end = end_of(row, tile) / 4 * 4;
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      const int stop = end_of(row + i, tile) < begin ? end_of(row + i, tile) : begin;
      sum[i] = weigh_row(row + i, tile, begin_of(row + i, tile), stop, channel, sum[i]);
    }
    for (int e = begin; e < end; e += 4) {
      const Vec v[4] = {{tiles_.entries[e][channel]},
                        {tiles_.entries[e + 1][channel]},
                        {tiles_.entries[e + 2][channel]},
                        {tiles_.entries[e + 3][channel]}};
#pragma unroll
      for (int i = 0; i < kCount; ++i) {
        const float4 term = four(scores_ + (row + i) * stride_ + tile + e);
        sum[i] = fma(Vec{term.x}, v[0], sum[i]);
        sum[i] = fma(Vec{term.y}, v[1], sum[i]);
        sum[i] = fma(Vec{term.z}, v[2], sum[i]);
        sum[i] = fma(Vec{term.w}, v[3], sum[i]);
      }
    }
    const int done = begin < end ? end : begin;
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      const int start = begin_of(row + i, tile) > done ? begin_of(row + i, tile) : done;
      sum[i] = weigh_row(row + i, tile, start, end_of(row + i, tile), channel, sum[i]);
    }
  }

  __device__ Vec weigh_row(int row, int tile, int begin, int end, int channel, Vec sum) const {
    const float* term = scores_ + row * stride_ + tile;
    for (int e = begin; e < end; ++e) sum = fma(Vec{term[e]}, Vec{tiles_.entries[e][channel]}, sum);
    return sum;
  }

  // Of the entries that a row sees, those of a tile.
  __device__ int begin_of(int row, int tile) const {
    return from(row) > tile ? from(row) - tile : 0;
  }
  __device__ int end_of(int row, int tile) const {
    return to(row) - tile < kTile ? to(row) - tile : kTile;
  }

  __device__ static float4 four(const float* p) { return *reinterpret_cast<const float4*>(p); }

  // The key (part 1) or the value (part 2) of entry base_ + i.
  __device__ const float* find(int part, int i) const {
    const int64_t dim = g_.heads * g_.head_dim;
    const int64_t entry = base_ + i;
    if (entry == 0) return bias_ + part * dim;
    if (entry >= run_.begin) return rows_of_block_ + ((entry - run_.entry) * 3 + part) * dim;
    int64_t slot = slot_ + i;
    if (slot >= g_.past) slot -= g_.past;
    return cache_ + (part - 1) * g_.past * dim + slot * g_.head_dim;
  }

  __device__ void read_entries(int part, int tile, int64_t c) {
    const int channel = thread_ % kChannels;
    const bool exists = channel < width_at(c);
    const int left = span_ - tile < kTile ? span_ - tile : kTile;
#pragma unroll 4
    for (int e = thread_ / kChannels; e < left; e += S::kWarps)
      if (exists) tiles_.entries[e][channel] = find(part, tile + e)[c + channel];
  }

  __device__ void read_queries(int64_t c) {
    const int channel = thread_ % kChannels;
    for (int row = thread_ / kChannels; row < rows_; row += S::kWarps) {
      if (channel < width_at(c))
        tiles_.queries[row][channel] =
            rows_of_block_[row * 3 * g_.heads * g_.head_dim + c + channel];
    }
  }

  const LmAttention& g_;
  const LmRun& run_;
  typename S::Tiles& tiles_;
  float* scores_;  // [rows][stride_], entries from base_ on
  int thread_, rows_, stride_;
  int64_t base_;  // the first entry that row 0 sees
  int span_;      // entries that any row sees
  int64_t slot_;  // of entry base_
  const float* bias_;
  const float* rows_of_block_;
  const float* cache_;
  float* out_;
};

template <int kGroups>
__global__ void __launch_bounds__(Shape<kGroups>::kThreads, Shape<kGroups>::kResident)
    attend_head(LmAttention g) {
  const LmRun run = g.block.runs[blockIdx.x / g.heads];
  if (run.rows == 0) return;
  auto& tiles = *shared_memory<typename Shape<kGroups>::Tiles>();
  Head<kGroups> head(g, run, blockIdx.x % g.heads, tiles);
  head.score();
  head.soften();
  head.mix();
}

constexpr int kCopiers = 128;

// Of a stream's last entries: those that an earlier one in the same block replaces are left out.
__global__ void __launch_bounds__(kCopiers) remember_run(LmAttention g) {
  const LmRun run = g.block.runs[blockIdx.x];
  const int64_t dim = g.heads * g.head_dim;
  float* const keys = run.cache + g.layer * 2 * g.past * dim;
  for (int64_t row = 0; row < run.rows; ++row) {
    const int64_t entry = run.entry + row;
    if (entry + g.past < run.end) continue;
    const int64_t slot = entry % g.past;
    const float* from = g.qkv + (run.first + row) * 3 * dim + dim;
    for (int i = static_cast<int>(threadIdx.x); i < dim; i += kCopiers) {
      const int head = i / static_cast<int>(g.head_dim);
      const int channel = i % static_cast<int>(g.head_dim);
      float* const to = keys + (head * g.past + slot) * g.head_dim + channel;
      to[0] = from[i];
      to[g.past * dim] = from[dim + i];
    }
  }
}

template <int kGroups>
void attend_with(const LmAttention& g, cudaStream_t stream) {
  launch(attend_head<kGroups>, g.block.count * g.heads, Shape<kGroups>::kThreads,
         shared_bytes(g.run_rows, g.past), stream, g);
}

}  // namespace

int64_t attention_rows(int64_t past) {
  int64_t rows = kMostRows;
  while (rows > 1 && shared_bytes(rows, past) > kSharedBytes) --rows;
  return rows;
}

void attend(const LmAttention& g, cudaStream_t stream) {
  if (g.run_rows > Shape<1>::kRows) return attend_with<4>(g, stream);
  attend_with<1>(g, stream);
}

void remember(const LmAttention& g, cudaStream_t stream) {
  launch(remember_run, g.block.count, kCopiers, 0, stream, g);
}

}  // namespace encodec_fast::cuda
