// Residual vector quantisation. A block of threads takes its rows through all codebooks: entries
// stream through shared memory, the residual stays there, and each thread keeps the best of the
// entries that it scored, so no distance is ever written down.
#include "cuda/kernels.h"
#include "cuda/launch.h"
#include "kernels/elements.h"
#include "kernels/gemm.h"

namespace encodec_fast::cuda {
namespace {

using namespace EF_ISA;

constexpr int kDepth = 16;     // of a tile, in k
constexpr int kEntries = 128;  // of a tile
constexpr int kThreads = 256;

// kM rows of a block; a thread has kRows of them times kColumns entries.
template <int kM_, int kRows_, int kColumns_, bool kOnChip_>
struct Shape {
  static constexpr int kM = kM_, kRows = kRows_, kColumns = kColumns_;
  static constexpr bool kOnChip = kOnChip_;  // else the residual is in global memory
  static constexpr int kAcross = kEntries / kColumns;
  static constexpr int kStride = kM + 4;
  static_assert(kM / kRows * kAcross == kThreads, "every thread has its part of a tile");

  struct Fixed {
    float entries[2][kDepth][kEntries];
    float score[kM][kAcross];
    int index[kM][kAcross];
    int winner[kM];
  };
  // Behind it: the residual [dim][kStride], or tiles of it [2][kDepth][kStride].
  static size_t shared(int64_t dim) {
    const int64_t depth = kOnChip ? dim : 2 * kDepth;
    return sizeof(Fixed) + static_cast<size_t>(depth * kStride) * sizeof(float);
  }
};

struct Search {
  Books books;
  const float* latents;
  float* residual;  // [rows][dim], a copy of latents, where it is not on the chip
  int64_t rows, n_q;
  uint16_t* codes;
  int64_t code_stride;
};

template <typename S>
class Block {
 public:
  __device__ explicit Block(const Search& s)
      : s_(s),
        fixed_(*shared_memory<typename S::Fixed>()),
        residual_(reinterpret_cast<float*>(&fixed_ + 1)),
        thread_(static_cast<int>(threadIdx.x)),
        first_(static_cast<int64_t>(blockIdx.x) * S::kM),
        depth_((s.books.dim + kDepth - 1) / kDepth),
        tiles_((s.books.size + kEntries - 1) / kEntries) {}

  __device__ void run() {
    if constexpr (S::kOnChip) take_rows();
    const int64_t steps = s_.n_q * tiles_ * depth_;
    read(0);
    if constexpr (!S::kOnChip) read_rows(0);
    write(0);
    __syncthreads();
    for (int64_t step = 0; step < steps; ++step) {
      const int64_t tile = step / depth_ % tiles_;
      const int64_t k = step % depth_ * kDepth;
      const int buffer = static_cast<int>(step % 2);
      const bool book_ends = (step + 1) % (tiles_ * depth_) == 0;
      if (step + 1 < steps) read(step + 1);
      if (k == 0) start(step / depth_ / tiles_, tile);
      if (tile == 0 && k == 0) forget();
      multiply(buffer, k);
      if (k + kDepth >= s_.books.dim) keep_best(tile * kEntries);
      if (book_ends) choose(step / depth_ / tiles_);
      // After what was chosen was subtracted.
      if constexpr (!S::kOnChip) {
        if (step + 1 < steps) read_rows(step + 1);
      }
      if (step + 1 < steps) write(buffer ^ 1);
      __syncthreads();
    }
  }

 private:
  static constexpr int kReads = kEntries * kDepth / 4 / kThreads;
  static constexpr int kRowReads = (S::kM * kDepth + kThreads - 1) / kThreads;

  __device__ int x() const { return thread_ % S::kAcross; }
  __device__ int y() const { return thread_ / S::kAcross; }
  __device__ static int column(int x, int j) {
    return j / 4 * (kEntries / (S::kColumns / 4)) + x * 4 + j % 4;
  }

  // Rows that do not exist are zeros, and their winners are not written.
  __device__ void take_rows() {
    const int64_t dim = s_.books.dim;
    for (int64_t i = thread_; i < S::kM * dim; i += kThreads) {
      const int64_t row = i / dim;
      residual_[i % dim * S::kStride + row] =
          first_ + row < s_.rows ? s_.latents[(first_ + row) * dim + i % dim] : 0.0f;
    }
  }

  // The entries of a step, to registers.
  __device__ void read(int64_t step) {
    const int64_t q = step / depth_ / tiles_;
    const int64_t entry = step / depth_ % tiles_ * kEntries;
    const int64_t k = step % depth_ * kDepth;
    const float* panels = s_.books.panels + q * s_.books.padded_size * s_.books.dim;
#pragma unroll
    for (int u = 0; u < kReads; ++u) {
      const int i = thread_ + u * kThreads;
      const int64_t row = k + i / 4 % kDepth;
      const int64_t at = entry + i / (4 * kDepth) * kPanel + i % 4 * 4;
      read_[u] = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
      if (row < s_.books.dim && at < s_.books.padded_size) {
        read_[u] = *reinterpret_cast<const float4*>(panels + at / kPanel * kPanel * s_.books.dim +
                                                    row * kPanel + at % kPanel);
      }
    }
  }

  __device__ void read_rows(int64_t step) {
    const int64_t k = step % depth_ * kDepth;
#pragma unroll
    for (int u = 0; u < kRowReads; ++u) {
      const int i = thread_ + u * kThreads;
      const int64_t row = first_ + i / kDepth;
      const int64_t at = k + i % kDepth;
      row_read_[u] = i < S::kM * kDepth && row < s_.rows && at < s_.books.dim
                         ? s_.residual[row * s_.books.dim + at]
                         : 0.0f;
    }
  }

  __device__ void write(int buffer) {
#pragma unroll
    for (int u = 0; u < kReads; ++u) {
      const int i = thread_ + u * kThreads;
      float* to = &fixed_.entries[buffer][i / 4 % kDepth][i / (4 * kDepth) * kPanel + i % 4 * 4];
      *reinterpret_cast<float4*>(to) = read_[u];
    }
    if constexpr (!S::kOnChip) {
#pragma unroll
      for (int u = 0; u < kRowReads; ++u) {
        const int i = thread_ + u * kThreads;
        if (i < S::kM * kDepth)
          residual_[(buffer * kDepth + i % kDepth) * S::kStride + i / kDepth] = row_read_[u];
      }
    }
  }

  // Chains start from -|e|^2 / 2; entries that do not exist from minus infinity, so they never
  // win.
  __device__ void start(int64_t q, int64_t tile) {
    const float* half = s_.books.half_norm + q * s_.books.padded_size;
#pragma unroll
    for (int j = 0; j < S::kColumns; ++j) {
      const int64_t entry = tile * kEntries + column(x(), j);
      const float from = entry < s_.books.padded_size ? half[entry] : -infinity();
#pragma unroll
      for (int i = 0; i < S::kRows; ++i) sum_[i][j] = from;
    }
  }

  __device__ static float infinity() { return float_of(0x7f800000u); }

  __device__ void forget() {
#pragma unroll
    for (int i = 0; i < S::kRows; ++i) {
      score_[i] = -infinity();
      index_[i] = 0;
    }
  }

  __device__ void multiply(int buffer, int64_t k) {
    const float* rows = residual_ + (S::kOnChip ? k : buffer * kDepth) * S::kStride;
    if (s_.books.dim - k >= kDepth) {
#pragma unroll
      for (int d = 0; d < kDepth; ++d) step(rows, buffer, d);
    } else {
      for (int d = 0; d < static_cast<int>(s_.books.dim - k); ++d) step(rows, buffer, d);
    }
  }

  __device__ void step(const float* rows, int buffer, int d) {
    float r[S::kRows];
    float e[S::kColumns];
    const float* from = rows + d * S::kStride + y() * S::kRows;
#pragma unroll
    for (int i = 0; i < S::kRows; ++i) r[i] = from[i];
#pragma unroll
    for (int j = 0; j < S::kColumns; ++j) e[j] = fixed_.entries[buffer][d][column(x(), j)];
#pragma unroll
    for (int i = 0; i < S::kRows; ++i) {
#pragma unroll
      for (int j = 0; j < S::kColumns; ++j)
        sum_[i][j] = fma(Vec{r[i]}, Vec{e[j]}, Vec{sum_[i][j]}).v;
    }
  }

  __device__ void keep_best(int64_t entry) {
#pragma unroll
    for (int i = 0; i < S::kRows; ++i) {
#pragma unroll
      for (int j = 0; j < S::kColumns; ++j) {
        const int index = static_cast<int>(entry) + column(x(), j);
        if (takes_lead(sum_[i][j], index, score_[i], index_[i])) {
          score_[i] = sum_[i][j];
          index_[i] = index;
        }
      }
    }
  }

  // The best of all threads, its code, and its subtraction.
  __device__ void choose(int64_t q) {
#pragma unroll
    for (int i = 0; i < S::kRows; ++i) {
      fixed_.score[y() * S::kRows + i][x()] = score_[i];
      fixed_.index[y() * S::kRows + i][x()] = index_[i];
    }
    __syncthreads();
    for (int row = thread_; row < S::kM; row += kThreads) {
      float best = -infinity();
      int winner = 0;  // what a row of not-a-numbers gets: a valid index
      for (int j = 0; j < S::kAcross; ++j) {
        const float score = fixed_.score[row][j];
        const int index = fixed_.index[row][j];
        if (!takes_lead(score, index, best, winner)) continue;
        best = score;
        winner = index;
      }
      fixed_.winner[row] = winner;
      if (first_ + row < s_.rows)
        s_.codes[q * s_.code_stride + first_ + row] = static_cast<uint16_t>(winner);
    }
    __syncthreads();
    subtract(q);
    __syncthreads();
  }

  __device__ void subtract(int64_t q) {
    const int64_t dim = s_.books.dim;
    for (int64_t i = thread_; i < S::kM * dim; i += kThreads) {
      const int64_t row = i / dim;
      if (first_ + row >= s_.rows) return;
      float* r = S::kOnChip ? residual_ + i % dim * S::kStride + row
                            : s_.residual + (first_ + row) * dim + i % dim;
      const float* entry = s_.books.entries + (q * s_.books.size + fixed_.winner[row]) * dim;
      store(r, load(r) - load(entry + i % dim));
    }
  }

  const Search& s_;
  typename S::Fixed& fixed_;
  float* residual_;
  int thread_;
  int64_t first_, depth_, tiles_;
  float4 read_[kReads];
  float row_read_[kRowReads];
  float sum_[S::kRows][S::kColumns];
  float score_[S::kRows];
  int index_[S::kRows];
};

template <typename S>
__global__ void __launch_bounds__(kThreads, 2) search(Search s) {
  Block<S>(s).run();
}

template <typename S>
void run(const Search& s, cudaStream_t stream) {
  launch(search<S>, (s.rows + S::kM - 1) / S::kM, kThreads, S::shared(s.books.dim), stream, s);
}

// Of a block's shared memory; two blocks of the usual 128 dimensions then share a multiprocessor.
constexpr int64_t kMostOnChip = 160;

__global__ void __launch_bounds__(kThreads)
    look_up(Books books, const Codes* parts, int64_t blocks, int64_t n_q, int* bad) {
  const Codes part = parts[blockIdx.x / blocks];
  const int64_t step = blocks * kThreads;
  for (int64_t i = blockIdx.x % blocks * kThreads + threadIdx.x; i < part.rows * books.dim;
       i += step) {
    const int64_t row = i / books.dim;
    Vec sum = {0.0f};
    for (int64_t q = 0; q < n_q; ++q) {
      int64_t code = part.codes[q * part.rows + row];
      if (code >= books.size) {
        *bad = 1;
        code = 0;
      }
      sum = sum + load(books.entries + (q * books.size + code) * books.dim + i % books.dim);
    }
    store(part.latent + i, sum);
  }
}

}  // namespace

int64_t rvq_scratch(const Books& books, int64_t rows) {
  return books.dim <= kMostOnChip ? 0 : rows * books.dim * static_cast<int64_t>(sizeof(float));
}

void rvq_encode(const Books& books, const float* latents, int64_t rows, int64_t n_q,
                uint16_t* codes, int64_t code_stride, float* scratch, int multiprocessors,
                cudaStream_t stream) {
  if (rows == 0) return;
  const Search s = {books, latents, scratch, rows, n_q, codes, code_stride};
  const bool many = (rows + 127) / 128 >= multiprocessors;
  if (books.dim <= kMostOnChip)
    return many ? run<Shape<128, 8, 8, true>>(s, stream) : run<Shape<16, 2, 4, true>>(s, stream);
  check(cudaMemcpyAsync(scratch, latents, static_cast<size_t>(rvq_scratch(books, rows)),
                        cudaMemcpyDeviceToDevice, stream),
        "copying latents");
  if (many) return run<Shape<128, 8, 8, false>>(s, stream);
  run<Shape<16, 2, 4, false>>(s, stream);
}

void rvq_decode(const Books& books, const Codes* parts, int64_t part_count, int64_t longest,
                int64_t n_q, int* bad, cudaStream_t stream) {
  if (part_count == 0 || longest == 0) return;
  const int64_t blocks = blocks_for(longest * books.dim, kThreads);
  launch(look_up, blocks * part_count, kThreads, 0, stream, books, parts, blocks, n_q, bad);
}

}  // namespace encodec_fast::cuda
