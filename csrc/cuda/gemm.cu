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

constexpr int kDepth = 16;  // of a tile, in k

// Block of kM x kN results, of which a thread has kRows x kColumns.
template <int kM_, int kN_, int kRows_, int kColumns_>
struct Shape {
  static constexpr int kM = kM_, kN = kN_, kRows = kRows_, kColumns = kColumns_;
  static constexpr int kAcross = kN / kColumns;  // threads side by side
  static constexpr int kThreads = kM / kRows * kAcross;
  static constexpr int kStride = kM + 4;  // of a tile's row: keeps vectors aligned
  static constexpr int kAReads = (kM * kDepth / 4 + kThreads - 1) / kThreads;
  static constexpr int kWReads = (kN * kDepth / 4 + kThreads - 1) / kThreads;

  struct Tiles {
    float a[2][kDepth][kStride];
    float w[2][kDepth][kN];
  };
  // The i-th column of the thread that is `x` from the left: in groups of four, so that neighbours
  // read neighbouring banks.
  __device__ static int column(int x, int i) {
    return i / 4 * (kN / ((kColumns + 3) / 4)) + x * (kColumns < 4 ? kColumns : 4) + i % 4;
  }
};

__device__ inline float4 zeros() { return make_float4(0.0f, 0.0f, 0.0f, 0.0f); }

// Four values of a row, of which those at and behind `left` do not exist.
template <bool kVectors>
__device__ inline float4 read_four(const float* p, int64_t left) {
  if constexpr (kVectors) {
    return left > 0 ? *reinterpret_cast<const float4*>(p) : zeros();
  } else {
    return make_float4(left > 0 ? p[0] : 0.0f, left > 1 ? p[1] : 0.0f, left > 2 ? p[2] : 0.0f,
                       left > 3 ? p[3] : 0.0f);
  }
}

template <typename S, bool kVectors>
class Block {
 public:
  __device__ Block(const Product& g, typename S::Tiles& tiles)
      : g_(g),
        tiles_(tiles),
        thread_(static_cast<int>(threadIdx.x)),
        wide_((g.n + kPanel - 1) / kPanel * kPanel) {
    const int64_t across = (g.n + S::kN - 1) / S::kN;
    const int64_t block = blockIdx.x;
    row_ = block / across * S::kM;
    column_ = block % across * S::kN;
    for (int u = 0; u < S::kAReads; ++u) {
      // Behind the last row: that one again, whose results are not written twice.
      int64_t row = row_ + (thread_ + u * S::kThreads) / (kDepth / 4);
      row = row < g.rows ? row : g.rows - 1;
      const Part& part = g.parts[part_of(g.parts, g.part_count, row)];
      from_[u] = part.a + (row - part.first) * g.a_stride;
    }
  }

  // The next tile, to registers.
  __device__ void read(int64_t k) {
#pragma unroll
    for (int u = 0; u < S::kAReads; ++u) {
      const int i = thread_ + u * S::kThreads;
      const int64_t at = k + i % (kDepth / 4) * 4;
      if (i < S::kM * kDepth / 4) a_[u] = read_four<kVectors>(from_[u] + at, g_.k - at);
    }
#pragma unroll
    for (int u = 0; u < S::kWReads; ++u) {
      const int i = thread_ + u * S::kThreads;
      if (i < S::kN * kDepth / 4) w_[u] = read_weights(i, k);
    }
  }

  __device__ void write(int buffer) {
#pragma unroll
    for (int u = 0; u < S::kAReads; ++u) {
      const int i = thread_ + u * S::kThreads;
      if (i >= S::kM * kDepth / 4) continue;
      float (*to)[S::kStride] = tiles_.a[buffer] + i % (kDepth / 4) * 4;
      const int row = i / (kDepth / 4);
      to[0][row] = a_[u].x;
      to[1][row] = a_[u].y;
      to[2][row] = a_[u].z;
      to[3][row] = a_[u].w;
    }
#pragma unroll
    for (int u = 0; u < S::kWReads; ++u) {
      const int i = thread_ + u * S::kThreads;
      if (i < S::kN * kDepth / 4)
        *reinterpret_cast<float4*>(&tiles_.w[buffer][weight_row(i)][weight_column(i)]) = w_[u];
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
    if (depth == kDepth) {
#pragma unroll
      for (int k = 0; k < kDepth; ++k) step(buffer, k);
    } else {
      for (int k = 0; k < depth; ++k) step(buffer, k);
    }
  }

  __device__ void finish() {
#pragma unroll
    for (int i = 0; i < S::kRows; ++i) {
      const int64_t row = row_ + y() * S::kRows + i;
      if (row >= g_.rows) return;
      const Part& part = g_.parts[part_of(g_.parts, g_.part_count, row)];
      const int64_t at = (row - part.first) * g_.n + column_;
      if constexpr (S::kColumns % 4 == 0) {
        if (g_.writes_vectors) {
#pragma unroll
          for (int j = 0; j < S::kColumns; j += 4) finish_four(part, at, i, j);
          continue;
        }
      }
#pragma unroll
      for (int j = 0; j < S::kColumns; ++j) finish_one(part, at, i, j);
    }
  }

 private:
  __device__ int x() const { return thread_ % S::kAcross; }
  __device__ int y() const { return thread_ / S::kAcross; }

  // Neighbouring threads read a panel's rows one after the other, as they lie in memory. A tile
  // that is narrower than a panel reads the panel's first columns.
  static constexpr int kPanelReads = S::kN < kPanel ? S::kN / 4 : static_cast<int>(kPanel) / 4;
  __device__ static int weight_row(int i) { return i / kPanelReads % kDepth; }
  __device__ static int weight_column(int i) {
    return i / (kPanelReads * kDepth) * static_cast<int>(kPanel) + i % kPanelReads * 4;
  }
  __device__ float4 read_weights(int i, int64_t k) const {
    const int64_t row = k + weight_row(i);
    const int64_t column = column_ + weight_column(i);
    if (row >= g_.k || column >= wide_) return zeros();
    return *reinterpret_cast<const float4*>(g_.panels + column / kPanel * kPanel * g_.k +
                                            row * kPanel + column % kPanel);
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
    if (part.out != nullptr)
      *reinterpret_cast<float4*>(part.out + at) = make_float4(y[0].v, y[1].v, y[2].v, y[3].v);
    if (part.elu != nullptr) {
      *reinterpret_cast<float4*>(part.elu + at) =
          make_float4(elu(y[0]).v, elu(y[1]).v, elu(y[2]).v, elu(y[3]).v);
    }
  }

  const Product& g_;
  typename S::Tiles& tiles_;
  int thread_;
  int64_t wide_, row_, column_;
  const float* from_[S::kAReads];
  float4 a_[S::kAReads], w_[S::kWReads];
  float sum_[S::kRows][S::kColumns];
};

template <typename S, bool kVectors>
__global__ void __launch_bounds__(S::kThreads, 2) product(Product g) {
  Block<S, kVectors> block(g, *shared_memory<typename S::Tiles>());
  block.start();
  block.read(0);
  block.write(0);
  __syncthreads();
  int buffer = 0;
  for (int64_t k = 0; k < g.k; k += kDepth, buffer ^= 1) {
    const bool more = k + kDepth < g.k;
    if (more) block.read(k + kDepth);  // arrives while the tile before is multiplied
    block.multiply(buffer, more ? kDepth : static_cast<int>(g.k - k));
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
  const auto kernel = g.reads_vectors ? product<S, true> : product<S, false>;
  launch(kernel, tiles_of<S>(g), S::kThreads, sizeof(typename S::Tiles), stream, g);
}

using Small = Shape<32, 32, 2, 4>;

// In large tiles, unless these are so few that they leave multiprocessors idle.
template <typename S>
void run_if_many(const Product& g, int multiprocessors, cudaStream_t stream) {
  if (tiles_of<S>(g) >= multiprocessors) return run<S>(g, stream);
  run<Small>(g, stream);
}

}  // namespace

void gemm(const Product& g, int multiprocessors, cudaStream_t stream) {
  if (g.rows == 0) return;
  if (g.n <= 4) return run<Shape<256, 4, 1, 4>>(g, stream);
  if (g.n <= 16) return run_if_many<Shape<256, 16, 4, 4>>(g, multiprocessors, stream);
  if (g.n <= 32) return run_if_many<Shape<256, 32, 8, 4>>(g, multiprocessors, stream);
  if (g.n <= 64) return run_if_many<Shape<128, 64, 8, 4>>(g, multiprocessors, stream);
  run_if_many<Shape<128, 128, 8, 8>>(g, multiprocessors, stream);
}

}  // namespace encodec_fast::cuda
