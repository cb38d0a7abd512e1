#include "kernels/rvq.h"

#include "kernels/elements.h"
#include "kernels/tile.h"

#ifdef __AVX512VNNI__
#include "kernels/shortlist.h"
#endif

namespace encodec_fast::EF_ISA {
namespace {

// Rows that pass over a panel, and stay in the first cache level with it.
constexpr int kBatch = 24;
// Rows that pass through one codebook before the next, and stay in the second cache level.
constexpr int kRound = 16 * kBatch;

// Best score of each column of a panel for one row, and the panel that it came from. The panel's
// number is held as a float, which is exact, so that it moves as the score does.
struct Best {
  float score[kPanel];
  float panel[kPanel];
};

// The best entries of one codebook for up to kBatch rows.
class Search {
 public:
  static constexpr int kRows = kTileRows;

  Search(const RvqCodebooks& books, int64_t q, const float* residual, int64_t rows) noexcept
      : books_(books),
        panels_(books.panels + q * books.panel_floats),
        start_(books.half_norm + q * books.padded_size),
        residual_(residual) {
    for (int64_t r = 0; r < rows; ++r) {
      for (int j = 0; j < kPanel; ++j) {
        best_[r].score[j] = -__builtin_inff();
        best_[r].panel[j] = 0.0f;  // what a row of NaN gets: a valid index, whatever the input
      }
    }
    run_tiles(rows, books.padded_size / kPanel, false, *this);
  }

  void begin(int64_t panel) noexcept {
    panel_ = panel;
    row_ = 0;
  }

  template <int R, int P>
  void run() noexcept {
    const float* a[R];
    for (int r = 0; r < R; ++r) a[r] = residual_ + (row_ + r) * books_.dim;
    Accumulators<R, P> acc;
#pragma GCC unroll 8
    for (int p = 0; p < P; ++p) {
#pragma GCC unroll 2
      for (int v = 0; v < kVecs; ++v) {
        const Vec start = load(start_ + (panel_ + p) * kPanel + v * kLanes);
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r) acc[r][p][v] = start;
      }
    }
    chains<R, P>(panels_ + panel_ * books_.dim * kPanel, books_.dim, a, acc);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 2
      for (int v = 0; v < kVecs; ++v) {
        float* const score = best_[row_ + r].score + v * kLanes;
        float* const panel = best_[row_ + r].panel + v * kLanes;
        Vec top = load(score);
        Vec from = load(panel);
#pragma GCC unroll 8
        for (int p = 0; p < P; ++p) {
          const Vec other = acc[r][p][v];
          from = select_greater(other, top, broadcast(static_cast<float>(panel_ + p)), from);
          top = larger(other, top);
        }
        store(score, top);
        store(panel, from);
      }
    }
    row_ += R;
  }

  // The index of the best entry of a row, ties to the lowest.
  int64_t winner(int64_t row) const noexcept {
    const Best& best = best_[row];
    float top = best.score[0];
    int64_t index = static_cast<int64_t>(best.panel[0]) * kPanel;
    for (int64_t j = 1; j < kPanel; ++j) {
      const int64_t other = static_cast<int64_t>(best.panel[j]) * kPanel + j;
      if (takes_lead(best.score[j], other, top, index)) {
        top = best.score[j];
        index = other;
      }
    }
    return index;
  }

 private:
  const RvqCodebooks& books_;
  const float* panels_;
  const float* start_;
  const float* residual_;
  int64_t panel_ = 0, row_ = 0;
  Best best_[kBatch];
};

void find_plainly(const RvqCodebooks& books, int64_t q, const float* residual, int64_t rows,
                  int64_t* winners) noexcept {
  const Search found(books, q, residual, rows);
  for (int64_t r = 0; r < rows; ++r) winners[r] = found.winner(r);
}

#ifdef __AVX512VNNI__
void find(const RvqCodebooks& books, int64_t q, const float* residual, int64_t rows,
          int64_t* winners) noexcept {
  if (books.shortlists == nullptr) return find_plainly(books, q, residual, rows, winners);
  Shortlist shortlist(books, q);
  for (int64_t i = 0; i < rows; i += kShortRows) {
    const int64_t count = rows - i < kShortRows ? rows - i : kShortRows;
    const float* from = residual + i * books.dim;
    if (!shortlist.run(from, count, winners + i)) find_plainly(books, q, from, count, winners + i);
  }
}
#else
constexpr auto find = find_plainly;
#endif

// One codebook for up to kBatch rows.
void search(const RvqCodebooks& books, int64_t q, int64_t rows, float* residual,
            uint16_t* codes) noexcept {
  int64_t winners[kBatch];
  find(books, q, residual, rows, winners);
  const float* entry[kBatch];
  for (int64_t r = 0; r < rows; ++r) {
    const int64_t index = winners[r];
    codes[r] = static_cast<uint16_t>(index);
    entry[r] = books.entries + (q * books.size + index) * books.dim;
    for (int64_t k = 0; k < books.dim; k += kPanel) __builtin_prefetch(entry[r] + k);
  }
  for (int64_t r = 0; r < rows; ++r) {
    float* from = residual + r * books.dim;
    for (int64_t k = 0; k < books.dim; ++k) from[k] -= entry[r][k];
  }
}

}  // namespace

void rvq_encode(const RvqCodebooks& books, float* residual, int64_t rows, int64_t n_q,
                uint16_t* codes, int64_t code_stride) noexcept {
  for (int64_t first = 0; first < rows; first += kRound) {
    const int64_t end = rows - first < kRound ? rows : first + kRound;
    for (int64_t q = 0; q < n_q; ++q) {
      for (int64_t i = first; i < end; i += kBatch) {
        const int64_t count = end - i < kBatch ? end - i : kBatch;
        search(books, q, count, residual + i * books.dim, codes + q * code_stride + i);
      }
    }
  }
}

void rvq_decode(const RvqCodebooks& books, const uint16_t* codes, int64_t code_stride, int64_t rows,
                int64_t n_q, float* latent) noexcept {
  for (int64_t i = 0; i < rows; ++i) {
    float* out = latent + i * books.dim;
    for (int64_t k = 0; k < books.dim; ++k) out[k] = 0.0f;
    for (int64_t q = 0; q < n_q; ++q) {
      const float* entry =
          books.entries + (q * books.size + codes[q * code_stride + i]) * books.dim;
      for (int64_t k = 0; k < books.dim; ++k) out[k] += entry[k];
    }
  }
}

}  // namespace encodec_fast::EF_ISA
