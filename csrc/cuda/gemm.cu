// The strided matrix product. Every thread owns a few rows times a few columns of the result, each
// one chain of fused multiply-adds in increasing k; nothing is split over k, so neither the size of
// a tile nor who computes it changes a bit.
#include "cuda/kernels.h"
#include "cuda/launch.h"
#include "kernels/elements.h"
#include "kernels/gemm.h"

namespace encodec_fast::cuda {
namespace {

using namespace EF_ISA;

// Block of kM x kN results, of which a thread has kRows x kColumns; of a tile, kDepth steps of k.
template <int kM_, int kN_, int kRows_, int kColumns_, int kDepth_ = 16>
struct Shape {
  static constexpr int kM = kM_, kN = kN_, kRows = kRows_, kColumns = kColumns_, kDepth = kDepth_;
  static_assert(kColumns % 4 == 0, "columns are read and written as vectors");
  static constexpr int kAcross = kN / kColumns;  // threads side by side
  static constexpr int kThreads = kM / kRows * kAcross;
  static constexpr int kStride = kM + 4;  // of a tile's row: keeps vectors aligned
  // Vectors of a tile.
  static constexpr int kAVectors = kM * kDepth / 4, kWVectors = kN * kDepth / 4;
  static constexpr int kAReads = (kAVectors + kThreads - 1) / kThreads;
  static constexpr int kWReads = (kWVectors + kThreads - 1) / kThreads;
  // Columns between a thread's reads of the weights.
  static constexpr int kApart = kThreads / (4 * kDepth) * static_cast<int>(kPanel);
  static_assert(kWReads == 1 || kThreads % (4 * kDepth) == 0, "reads are whole panels apart");

  struct Tiles {
    float a[2][kDepth][kStride];
    float w[2][kDepth][kN];
  };
  // The i-th column of the thread that is `x` from the left: in groups of four, so that neighbours
  // read neighbouring banks.
  __device__ static int column(int x, int i) {
    return i / 4 * (kN / (kColumns / 4)) + x * 4 + i % 4;
  }
};

__device__ inline float4 zeros() { return make_float4(0.0f, 0.0f, 0.0f, 0.0f); }

// Four values of a row, of which those at and behind `left` do not exist. Nothing that a product
// reads is written while it runs.
template <bool kVectors>
__device__ inline float4 read_four(const float* p, int left) {
  if constexpr (kVectors) {
    return left > 0 ? __ldg(reinterpret_cast<const float4*>(p)) : zeros();
  } else {
    return make_float4(left > 0 ? __ldg(p) : 0.0f, left > 1 ? __ldg(p + 1) : 0.0f,
                       left > 2 ? __ldg(p + 2) : 0.0f, left > 3 ? __ldg(p + 3) : 0.0f);
  }
}

__device__ inline void write_four(float* p, float4 x) {
#ifdef __CUDACC__
  // nvcc makes four stores of an assignment.
  asm volatile("st.global.v4.f32 [%0], {%1, %2, %3, %4};" ::"l"(__cvta_generic_to_global(p)),
               "f"(x.x), "f"(x.y), "f"(x.z), "f"(x.w));
#else
  *reinterpret_cast<float4*>(p) = x;
#endif
}

// kReads, kWrites: rows are read, results written as vectors.
template <typename S, bool kReads, bool kWrites>
class Block {
 public:
  __device__ Block(const Product& g, typename S::Tiles& tiles)
      : g_(g), tiles_(tiles), thread_(static_cast<int>(threadIdx.x)) {
    const int64_t across = (g.n + S::kN - 1) / S::kN;
    row_ = blockIdx.x / across * S::kM;
    column_ = blockIdx.x % across * S::kN;
    const int64_t last = (row_ + S::kM < g.rows ? row_ + S::kM : g.rows) - 1;
    // Mostly one part has all the rows.
    low_ = part_of(g.parts, g.part_count, row_);
    high_ = part_of(g.parts, low_, g.part_count, last) + 1;
#pragma unroll
    for (int u = 0; u < S::kAReads; ++u) {
      // Behind the last row: that one again, whose results are not written twice.
      int64_t row = row_ + (thread_ + u * S::kThreads) / kAcross;
      row = row < last ? row : last;
      const Part& part = part_with(row);
      from_[u] = part.a + (row - part.first) * g.a_stride + inner();
    }
    const int64_t column = column_ + weight_column();
    left_ = static_cast<int>(g.k);
    columns_ = static_cast<int>((g.n + kPanel - 1) / kPanel * kPanel - column);
    weights_ = g.panels + column / kPanel * kPanel * g.k + weight_row() * kPanel + column % kPanel;
  }

  // The next tile, to registers.
  __device__ void read() {
#pragma unroll
    for (int u = 0; u < S::kAReads; ++u) {
      if (has<S::kAVectors>(u)) a_[u] = read_four<kReads>(from_[u], left_ - inner());
      from_[u] += S::kDepth;
    }
#pragma unroll
    for (int u = 0; u < S::kWReads; ++u) {
      w_[u] = zeros();
      if (has<S::kWVectors>(u) && weight_row() < left_ && u * S::kApart < columns_)
        w_[u] = __ldg(reinterpret_cast<const float4*>(weights_ + u * S::kApart * g_.k));
    }
    weights_ += S::kDepth * kPanel;
    left_ -= S::kDepth;
  }

  __device__ void write(int buffer) {
#pragma unroll
    for (int u = 0; u < S::kAReads; ++u) {
      if (!has<S::kAVectors>(u)) continue;
      float (*to)[S::kStride] = tiles_.a[buffer] + inner();
      const int row = (thread_ + u * S::kThreads) / kAcross;
      to[0][row] = a_[u].x;
      to[1][row] = a_[u].y;
      to[2][row] = a_[u].z;
      to[3][row] = a_[u].w;
    }
#pragma unroll
    for (int u = 0; u < S::kWReads; ++u) {
      if (!has<S::kWVectors>(u)) continue;
      float* to = &tiles_.w[buffer][weight_row()][weight_column() + u * S::kApart];
      *reinterpret_cast<float4*>(to) = w_[u];
    }
  }

  __device__ void start() {
#pragma unroll
    for (int j = 0; j < S::kColumns; ++j) {
      const int64_t column = column_ + S::column(x(), j);
      const float bias = column < g_.n ? g_.bias[column] : 0.0f;
#pragma unroll
      for (int i = 0; i < S::kRows; ++i) sum_[i][j] = bias;
    }
  }

  // The chains go on through `depth` steps of a tile. A step that does not exist must not be taken:
  // adding 0 * 0 would turn -0 into +0.
  __device__ void multiply(int buffer, int depth) {
    if (depth == S::kDepth) {
#pragma unroll
      for (int k = 0; k < S::kDepth; ++k) step(buffer, k);
    } else {
#pragma unroll 1
      for (int k = 0; k < depth; ++k) step(buffer, k);
    }
  }

  __device__ void finish() {
#pragma unroll
    for (int i = 0; i < S::kRows; ++i) {
      const int64_t row = row_ + y() * S::kRows + i;
      if (row >= g_.rows) return;
      const Part& part = part_with(row);
      const int64_t at = (row - part.first) * g_.n + column_;
      if constexpr (kWrites) {
#pragma unroll
        for (int j = 0; j < S::kColumns; j += 4) finish_four(part, at, i, j);
      } else {
#pragma unroll
        for (int j = 0; j < S::kColumns; ++j) finish_one(part, at, i, j);
      }
    }
  }

 private:
  static constexpr int kAcross = S::kDepth / 4;  // vectors of a row of the rows' tile
  // Of a row of the weights' tile in one panel. A tile that is narrower than a panel reads the
  // panel's first columns.
  static constexpr int kPanelReads = S::kN < kPanel ? S::kN / 4 : static_cast<int>(kPanel) / 4;

  __device__ int x() const { return thread_ % S::kAcross; }
  __device__ int y() const { return thread_ / S::kAcross; }
  // Whether this thread has a u-th vector of the kCount of a tile.
  template <int kCount>
  __device__ bool has(int u) const {
    return kCount % S::kThreads == 0 || thread_ + u * S::kThreads < kCount;
  }
  // Where this thread's vectors of the rows begin.
  __device__ int inner() const { return thread_ % kAcross * 4; }
  // Where those of the weights do: neighbouring threads read a panel's rows one after the other, as
  // they lie in memory.
  __device__ int weight_row() const { return thread_ / kPanelReads % S::kDepth; }
  __device__ int weight_column() const {
    return thread_ / (kPanelReads * S::kDepth) * static_cast<int>(kPanel) +
           thread_ % kPanelReads * 4;
  }
  __device__ const Part& part_with(int64_t row) const {
    return g_.parts[part_of(g_.parts, low_, high_, row)];
  }

  __device__ void step(int buffer, int k) {
    float a[S::kRows];
    float w[S::kColumns];
    const float* from = &tiles_.a[buffer][k][y() * S::kRows];
    if constexpr (S::kRows % 4 == 0) {
#pragma unroll
      for (int i = 0; i < S::kRows; i += 4) {
        const float4 four = *reinterpret_cast<const float4*>(from + i);
        a[i] = four.x, a[i + 1] = four.y, a[i + 2] = four.z, a[i + 3] = four.w;
      }
    } else {
#pragma unroll
      for (int i = 0; i < S::kRows; ++i) a[i] = from[i];
    }
#pragma unroll
    for (int j = 0; j < S::kColumns; ++j) w[j] = tiles_.w[buffer][k][S::column(x(), j)];
#pragma unroll
    for (int i = 0; i < S::kRows; ++i) {
#pragma unroll
      for (int j = 0; j < S::kColumns; ++j)
        sum_[i][j] = fma(Vec{a[i]}, Vec{w[j]}, Vec{sum_[i][j]}).v;
    }
  }

  __device__ void finish_one(const Part& part, int64_t row, int i, int j) {
    const int column = S::column(x(), j);
    if (column_ + column >= g_.n) return;
    const int64_t at = row + column;
    Vec y = {sum_[i][j]};
    if (part.add != nullptr) y = y + load(part.add + at);
    if (part.out != nullptr) store(part.out + at, y);
    if (part.elu != nullptr) store(part.elu + at, elu(y));
  }

  __device__ void finish_four(const Part& part, int64_t row, int i, int j) {
    const int column = S::column(x(), j);
    if (column_ + column >= g_.n) return;
    const int64_t at = row + column;
    Vec y[4] = {{sum_[i][j]}, {sum_[i][j + 1]}, {sum_[i][j + 2]}, {sum_[i][j + 3]}};
    if (part.add != nullptr) {
      const float4 add = *reinterpret_cast<const float4*>(part.add + at);
      y[0] = y[0] + Vec{add.x}, y[1] = y[1] + Vec{add.y};
      y[2] = y[2] + Vec{add.z}, y[3] = y[3] + Vec{add.w};
    }
    if (part.out != nullptr) write_four(part.out + at, make_float4(y[0].v, y[1].v, y[2].v, y[3].v));
    if (part.elu != nullptr) {
      write_four(part.elu + at, make_float4(elu(y[0]).v, elu(y[1]).v, elu(y[2]).v, elu(y[3]).v));
    }
  }

  const Product& g_;
  typename S::Tiles& tiles_;
  int thread_;
  int64_t row_, column_;
  int64_t low_, high_;  // the parts that the rows are of
  int left_, columns_;  // steps of k and columns of the panels, from this thread's next read on
  const float* from_[S::kAReads];
  const float* weights_;
  float4 a_[S::kAReads], w_[S::kWReads];
  float sum_[S::kRows][S::kColumns];
};

template <typename S, bool kReads, bool kWrites>
__global__ void __launch_bounds__(S::kThreads, 2) product(Product g) {
  Block<S, kReads, kWrites> block(g, *shared_memory<typename S::Tiles>());
  block.start();
  block.read();
  block.write(0);
  __syncthreads();
  int buffer = 0;
  for (int left = static_cast<int>(g.k); left > 0; left -= S::kDepth, buffer ^= 1) {
    const bool more = left > S::kDepth;
    if (more) block.read();  // arrives while the tile before is multiplied
    block.multiply(buffer, more ? S::kDepth : left);
    if (more) block.write(buffer ^ 1);
    __syncthreads();
  }
  block.finish();
}

template <typename S>
int64_t tiles_of(const Product& g) {
  return ((g.rows + S::kM - 1) / S::kM) * ((g.n + S::kN - 1) / S::kN);
}

template <typename S>
void run(const Product& g, cudaStream_t stream) {
  auto* kernel = g.reads_vectors ? product<S, true, false> : product<S, false, false>;
  if (g.writes_vectors) kernel = g.reads_vectors ? product<S, true, true> : product<S, false, true>;
  launch(kernel, tiles_of<S>(g), S::kThreads, sizeof(typename S::Tiles), stream, g);
}

using Small = Shape<32, 32, 2, 4>;

// In large tiles, which need half the instructions, unless these leave many multiprocessors idle.
template <typename S>
void run_if_many(const Product& g, int multiprocessors, cudaStream_t stream) {
  if (tiles_of<S>(g) * 4 >= int64_t{multiprocessors} * 3) return run<S>(g, stream);
  run<Small>(g, stream);
}

}  // namespace

void gemm(const Product& g, int multiprocessors, cudaStream_t stream) {
  if (g.rows == 0) return;
  if (g.k > INT32_MAX) throw DeviceError("cuda: a product has more steps than are counted");
  if (g.n <= 4) return run<Shape<256, 4, 1, 4>>(g, stream);
  if (g.n <= 16) return run_if_many<Shape<256, 16, 4, 4>>(g, multiprocessors, stream);
  if (g.n <= 32) return run_if_many<Shape<256, 32, 8, 4>>(g, multiprocessors, stream);
  if (g.n <= 64) return run_if_many<Shape<128, 64, 8, 4>>(g, multiprocessors, stream);
  run_if_many<Shape<128, 128, 8, 8, 8>>(g, multiprocessors, stream);
}

}  // namespace encodec_fast::cuda
