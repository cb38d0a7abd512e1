// The search of residual vector quantisation. A block of threads takes its rows through all
// codebooks: entries stream through shared memory, the residual stays there, and each thread keeps
// the best of the entries that it scored, so no distance is ever written down.
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
    // Of a row and the threads that share it; one more column keeps them in banks of their own.
    float score[kAcross][kM + 1];
    int index[kAcross][kM + 1];
    int winner[kM];
  };
  static_assert(sizeof(Fixed) % 16 == 0, "vectors are read behind it");
  // Behind it: the residual [dim][kStride], or tiles of it [2][kDepth][kStride].
  static constexpr size_t shared(int64_t dim) {
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

// This thread's share of the tiles that stream by: those of all codebooks lie behind each other,
// but for the last steps of k and the last entries, which may not exist.
class Entries {
 public:
  __device__ explicit Entries(const Books& books)
      : dim_(static_cast<int>(books.dim)),
        size_(static_cast<int>(books.padded_size)),
        row_(static_cast<int>(threadIdx.x) / 4 % kDepth),
        entry_(static_cast<int>(threadIdx.x) / (4 * kDepth) * kPanel),
        book_(books.panels + row_ * kPanel + static_cast<int>(threadIdx.x) % 4 * 4) {
    aim();
  }

  // The next tile, to registers.
  __device__ void read() {
#pragma unroll
    for (int u = 0; u < kReads; ++u) {
      read_[u] = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
      if (k_ + row_ < dim_ && first_ + entry_ + u * kApart < size_)
        read_[u] = *reinterpret_cast<const float4*>(at_ + int64_t{u} * kApart * dim_);
    }
    k_ += kDepth;
    at_ += kDepth * kPanel;
    if (k_ < dim_) return;
    k_ = 0;
    first_ += kEntries;
    if (first_ >= size_) {
      first_ = 0;
      book_ += int64_t{size_} * dim_;
    }
    aim();
  }

  __device__ void write(float (*tile)[kEntries]) const {
    const int column = entry_ + static_cast<int>(threadIdx.x) % 4 * 4;
#pragma unroll
    for (int u = 0; u < kReads; ++u)
      *reinterpret_cast<float4*>(&tile[row_][column + u * kApart]) = read_[u];
  }

 private:
  static constexpr int kReads = kEntries * kDepth / 4 / kThreads;
  static constexpr int kApart = kThreads / (4 * kDepth) * static_cast<int>(kPanel);

  __device__ void aim() { at_ = book_ + int64_t{first_ + entry_} * dim_; }

  int dim_, size_;
  int row_, entry_;        // in a tile
  int k_ = 0, first_ = 0;  // of the next tile
  const float* book_;      // where the next tile's codebook begins, for this thread
  const float* at_;
  float4 read_[kReads];
};

template <typename S>
class Block {
 public:
  __device__ explicit Block(const Search& s)
      : s_(s),
        fixed_(*shared_memory<typename S::Fixed>()),
        residual_(reinterpret_cast<float*>(&fixed_ + 1)),
        thread_(static_cast<int>(threadIdx.x)),
        dim_(static_cast<int>(s.books.dim)),
        first_(static_cast<int64_t>(blockIdx.x) * S::kM),
        entries_(s.books) {}

  __device__ void run() {
    if constexpr (S::kOnChip) take_rows();
    const int n_q = static_cast<int>(s_.n_q);
    const int size = static_cast<int>(s_.books.size);
    entries_.read();
    stage(0, 0);
    int buffer = 0;
    for (int q = 0; q < n_q; ++q) {
      forget();
      for (int entry = 0; entry < size; entry += kEntries) {
        start(q, entry);
        for (int k = 0; k < dim_; k += kDepth, buffer ^= 1) {
          const bool tile_ends = k + kDepth >= dim_;
          const bool book_ends = tile_ends && entry + kEntries >= size;
          const bool more = !book_ends || q + 1 < n_q;
          if (more) entries_.read();  // arrives while the tile before is multiplied
          multiply(buffer, k);
          if (tile_ends) keep_best(entry);
          if (book_ends) choose(q);
          if (more) stage(buffer ^ 1, tile_ends ? 0 : k + kDepth);
        }
      }
    }
  }

 private:
  __device__ int x() const { return thread_ % S::kAcross; }
  __device__ int y() const { return thread_ / S::kAcross; }
  __device__ static int column(int x, int j) {
    return j / 4 * (kEntries / (S::kColumns / 4)) + x * 4 + j % 4;
  }

  // Calls step(row, k) for the rows that exist. Eight threads take neighbouring k of a row, four
  // such groups of a warp neighbouring rows: so each has a bank of its own, and what they read of a
  // row is a whole sector of memory.
  template <typename Step>
  __device__ void for_rows(Step step) {
    constexpr int kSide = 8;
    for (int row = thread_ / kSide; row < S::kM; row += kThreads / kSide) {
      if (first_ + row >= s_.rows) return;
      for (int k = thread_ % kSide; k < dim_; k += kSide) step(row, k);
    }
  }

  // Rows that do not exist are whatever was there: their winners are not written.
  __device__ void take_rows() {
    const float* from = s_.latents + first_ * dim_;
    for_rows(
        [&](int row, int k) { residual_[k * S::kStride + row] = from[int64_t{row} * dim_ + k]; });
  }

  // The tile that was read, to shared memory, and what it is multiplied with.
  __device__ void stage(int buffer, int k) {
    entries_.write(fixed_.entries[buffer]);
    if constexpr (!S::kOnChip) {
      for (int i = thread_; i < S::kM * kDepth; i += kThreads) {
        const int64_t row = first_ + i / kDepth;
        const int at = k + i % kDepth;
        if (row < s_.rows && at < dim_) {
          residual_[(buffer * kDepth + i % kDepth) * S::kStride + i / kDepth] =
              s_.residual[row * dim_ + at];
        }
      }
    }
    __syncthreads();
  }

  // Chains start from -|e|^2 / 2; entries that do not exist from minus infinity, so they never
  // win.
  __device__ void start(int q, int first) {
    const float* half = s_.books.half_norm + q * s_.books.padded_size;
#pragma unroll
    for (int j = 0; j < S::kColumns; ++j) {
      const int entry = first + column(x(), j);
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

  __device__ void multiply(int buffer, int k) {
    const float* rows = residual_ + (S::kOnChip ? k : buffer * kDepth) * S::kStride;
    if (dim_ - k >= kDepth) {
#pragma unroll
      for (int d = 0; d < kDepth; ++d) step(rows, buffer, d);
    } else {
#pragma unroll 1
      for (int d = 0; d < dim_ - k; ++d) step(rows, buffer, d);
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

  // Indices of a thread rise, so that the first of equals stays, as takes_lead() has it.
  __device__ void keep_best(int first) {
#pragma unroll
    for (int j = 0; j < S::kColumns; ++j) {
      const int index = first + column(x(), j);
#pragma unroll
      for (int i = 0; i < S::kRows; ++i) {
        index_[i] = sum_[i][j] > score_[i] ? index : index_[i];
        score_[i] = sum_[i][j] > score_[i] ? sum_[i][j] : score_[i];
      }
    }
  }

  // The best of all threads, its code, and its subtraction.
  __device__ void choose(int q) {
#pragma unroll
    for (int i = 0; i < S::kRows; ++i) {
      fixed_.score[x()][y() * S::kRows + i] = score_[i];
      fixed_.index[x()][y() * S::kRows + i] = index_[i];
    }
    __syncthreads();
    for (int row = thread_; row < S::kM; row += kThreads) {
      float best = -infinity();
      int winner = 0;  // what a row of not-a-numbers gets: a valid index
      for (int j = 0; j < S::kAcross; ++j) {
        const float score = fixed_.score[j][row];
        const int index = fixed_.index[j][row];
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

  __device__ void subtract(int q) {
    const float* entries = s_.books.entries + q * s_.books.size * dim_;
    for_rows([&](int row, int k) {
      float* r =
          S::kOnChip ? residual_ + k * S::kStride + row : s_.residual + (first_ + row) * dim_ + k;
      store(r, load(r) - load(entries + int64_t{fixed_.winner[row]} * dim_ + k));
    });
  }

  const Search& s_;
  typename S::Fixed& fixed_;
  float* residual_;
  int thread_, dim_;
  int64_t first_;
  Entries entries_;
  float sum_[S::kRows][S::kColumns];
  float score_[S::kRows];
  int index_[S::kRows];
};

// Blocks of a multiprocessor, whose registers they share: as many as its shared memory has room
// for.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 900
constexpr int kResident = 1;
#else
constexpr int kResident = 2;
#endif

template <typename S>
__global__ void __launch_bounds__(kThreads, S::kOnChip ? kResident : 1) search(Search s) {
  Block<S>(s).run();
}

template <typename S>
void run(const Search& s, cudaStream_t stream) {
  launch(search<S>, (s.rows + S::kM - 1) / S::kM, kThreads, S::shared(s.books.dim), stream, s);
}

// Many rows of a block share its reads of entries; too few blocks leave multiprocessors idle.
template <bool kOnChip>
void run_all(const Search& s, int multiprocessors, cudaStream_t stream) {
  if ((s.rows + 127) / 128 >= multiprocessors) return run<Shape<128, 8, 8, kOnChip>>(s, stream);
  if ((s.rows + 31) / 32 * 2 > multiprocessors) return run<Shape<32, 4, 4, kOnChip>>(s, stream);
  run<Shape<16, 2, 4, kOnChip>>(s, stream);
}

// With more, the residual would not fit into the shared memory that a block can have on every
// device of compute capability 8 and later.
constexpr int64_t kMostOnChip = 128;
static_assert(Shape<128, 8, 8, true>::shared(kMostOnChip) <= 99 << 10, "of 8.6, 8.9 and 12.0");

}  // namespace

int64_t rvq_scratch(const Books& books, int64_t rows) {
  return books.dim <= kMostOnChip ? 0 : rows * books.dim * static_cast<int64_t>(sizeof(float));
}

void rvq_encode(const Books& books, const float* latents, int64_t rows, int64_t n_q,
                uint16_t* codes, int64_t code_stride, float* scratch, int multiprocessors,
                cudaStream_t stream) {
  if (rows == 0) return;
  const Search s = {books, latents, scratch, rows, n_q, codes, code_stride};
  if (books.dim <= kMostOnChip) return run_all<true>(s, multiprocessors, stream);
  check(cudaMemcpyAsync(scratch, latents, static_cast<size_t>(rvq_scratch(books, rows)),
                        cudaMemcpyDeviceToDevice, stream),
        "copying latents");
  run_all<false>(s, multiprocessors, stream);
}

}  // namespace encodec_fast::cuda
