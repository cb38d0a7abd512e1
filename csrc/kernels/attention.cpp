#include "kernels/attention.h"

#include "kernels/softmax.h"
#include "kernels/tile.h"

namespace encodec_fast::EF_ISA {
namespace {

// Rows of a tile of values: what the registers hold of two panels of channels.
constexpr int kValueRows = kRegisters == 32 ? 6 : 3;
static_assert(kTileRows >= kAttentionRows, "the scores of a group of rows are one tile");

constexpr int64_t smaller_of(int64_t a, int64_t b) noexcept { return a < b ? a : b; }
constexpr int64_t larger_of(int64_t a, int64_t b) noexcept { return a > b ? a : b; }

// One head and new entries row .. end - 1, at most kAttentionRows. Scores are kept by entry, from
// `base` on, which begins a panel.
class Group {
 public:
  static constexpr int kRows = kTileRows;

  Group(const AttentionArgs& args, int64_t head, int64_t row, int64_t end) noexcept
      : g(args),
        keys_(args.keys + head * args.slots * args.head_dim),
        values_(args.values + head * args.slots * args.head_dim),
        rows_(end - row),
        entry_(args.first + row) {
    const int64_t dim = g.heads * g.head_dim;
    for (int64_t r = 0; r < rows_; ++r) query_[r] = g.qkv + (row + r) * 3 * dim + head * g.head_dim;
    out_ = g.out + row * dim + head * g.head_dim;
    base_ = from(0) / kPanel * kPanel;
  }

  void attend() noexcept {
    const int64_t end = to(rows_ - 1);
    for (int64_t entry = base_; entry < end;) {
      const int64_t slot = entry % g.slots;
      const int64_t panels = (smaller_of(end - entry, g.slots - slot) + kPanel - 1) / kPanel;
      panel_keys_ = keys_ + slot * g.head_dim;
      panel_scores_ = g.scores + entry - base_;
      run_tiles(rows_, panels, false, *this);
      entry += panels * kPanel;
    }
    for (int64_t r = 0; r < rows_; ++r)
      sums_[r] = softmax_terms(score(r, from(r)), to(r) - from(r));
    for (int64_t r = 0; r < rows_; r += kValueRows) mix_rows(r, smaller_of(rows_ - r, kValueRows));
  }

  // For run_tiles: the scores of some panels.
  void begin(int64_t panel) noexcept { panel_ = panel; }
  template <int R, int P>
  void run() noexcept {
    const float* a[R];
    for (int r = 0; r < R; ++r) a[r] = query_[r];
    Accumulators<R, P> acc;
    const Vec zero = broadcast(0.0f);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 16
      for (int i = 0; i < P * kVecs; ++i) acc[r][i / kVecs][i % kVecs] = zero;
    }
    chains<R, P>(panel_keys_ + panel_ * kPanel * g.head_dim, g.head_dim, a, acc);
    const Vec scale = broadcast(g.scale);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      float* const to = panel_scores_ + r * g.slots + panel_ * kPanel;
#pragma GCC unroll 16
      for (int i = 0; i < P * kVecs; ++i)
        store(to + i * kLanes, acc[r][i / kVecs][i % kVecs] * scale);
    }
  }

 private:
  // The entries that row r sees: from(r) .. to(r) - 1.
  int64_t from(int64_t r) const noexcept { return larger_of(0, entry_ + r - g.reach); }
  int64_t to(int64_t r) const noexcept { return entry_ + r + 1; }
  float* score(int64_t r, int64_t entry) const noexcept {
    return g.scores + r * g.slots + entry - base_;
  }

  void mix_rows(int64_t row, int64_t rows) noexcept {
    for (int64_t c = 0; c < g.head_dim; c += 2 * kPanel) {
      if (g.head_dim - c > kPanel) {
        mix_panels<2>(row, rows, c);
      } else {
        mix_panels<1>(row, rows, c);
      }
    }
  }

  template <int P>
  void mix_panels(int64_t row, int64_t rows, int64_t c) noexcept {
    switch (rows) {
      case 1:
        return mix<1, P>(row, c);
      case 2:
        return mix<2, P>(row, c);
      case 3:
        return mix<3, P>(row, c);
      case 4:
        return mix<smaller_of(4, kValueRows), P>(row, c);
      case 5:
        return mix<smaller_of(5, kValueRows), P>(row, c);
      default:
        return mix<kValueRows, P>(row, c);
    }
  }

  // Rows `row` .. row + R - 1 and the channels of P panels from c on. The entries that all rows see
  // are taken together; those before and behind row by row.
  template <int R, int P>
  void mix(int64_t row, int64_t c) noexcept {
    float acc[R][P * kPanel] = {};
    const int64_t begin = from(row + R - 1);
    const int64_t end = larger_of(begin, to(row));
    for (int r = 0; r < R; ++r)
      weigh<1, P>(row + r, from(row + r), smaller_of(begin, to(row + r)), c, acc + r);
    weigh<R, P>(row, begin, to(row), c, acc);
    for (int r = 0; r < R; ++r)
      weigh<1, P>(row + r, smaller_of(end, to(row + r)), to(row + r), c, acc + r);
    const int64_t width = smaller_of(P * kPanel, g.head_dim - c);
    for (int r = 0; r < R; ++r) {
      float* const out = out_ + (row + r) * g.heads * g.head_dim + c;
      const Vec sum = broadcast(sums_[row + r]);
      for (int64_t i = 0; i < P * kPanel; i += kLanes) {
        const Vec y = load(acc[r] + i) / sum;
        if (i + kLanes <= width) {
          store(out + i, y);
        } else if (i < width) {
          store_part(out + i, y, width - i);
        }
      }
    }
  }

  // acc += term * value over the entries begin .. end - 1.
  template <int R, int P>
  void weigh(int64_t row, int64_t begin, int64_t end, int64_t c,
             float (*sums)[P * kPanel]) const noexcept {
    if (begin >= end) return;
    Accumulators<R, P> acc;
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 16
      for (int i = 0; i < P * kVecs; ++i) acc[r][i / kVecs][i % kVecs] = load(sums[r] + i * kLanes);
    }
    const float* term[R];
    for (int r = 0; r < R; ++r) term[r] = score(row + r, base_);
    while (begin < end) {
      const int64_t slot = begin % g.slots;
      const int64_t stop = smaller_of(end, begin + g.slots - slot);
      const float* value = values_ + slot * g.head_dim + c;
      for (; begin < stop; ++begin, value += g.head_dim) {
        accumulate<R, P>(
            term, begin - base_,
            [&](int p, int v) { return load(value + p * kPanel + v * kLanes); }, acc);
      }
    }
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 16
      for (int i = 0; i < P * kVecs; ++i) store(sums[r] + i * kLanes, acc[r][i / kVecs][i % kVecs]);
    }
  }

  const AttentionArgs& g;
  const float* keys_;
  const float* values_;
  int64_t rows_;
  int64_t entry_;  // of row 0
  int64_t base_ = 0;
  const float* query_[kAttentionRows] = {};
  float* out_ = nullptr;
  float sums_[kAttentionRows] = {};
  const float* panel_keys_ = nullptr;  // what run_tiles counts panels from
  float* panel_scores_ = nullptr;
  int64_t panel_ = 0;
};

}  // namespace

void remember(const AttentionArgs& g) noexcept {
  const int64_t dim = g.heads * g.head_dim;
  for (int64_t i = 0; i < g.rows; ++i) {
    const int64_t slot = (g.first + i) % g.slots;
    const float* key = g.qkv + i * 3 * dim + dim;
    const float* value = key + dim;
    for (int64_t h = 0; h < g.heads; ++h) {
      const int64_t head = h * g.slots * g.head_dim;
      float* const key_to = g.keys + head + slot / kPanel * kPanel * g.head_dim + slot % kPanel;
      float* const value_to = g.values + head + slot * g.head_dim;
      for (int64_t c = 0; c < g.head_dim; ++c) key_to[c * kPanel] = *key++;
      for (int64_t c = 0; c < g.head_dim; ++c) value_to[c] = *value++;
    }
  }
}

void attend(const AttentionArgs& g) noexcept {
  const int64_t groups = (g.rows + kAttentionRows - 1) / kAttentionRows;
  for (int64_t head = 0; head < g.heads; ++head) {
    for (int64_t i = 0; i < groups; ++i)
      Group(g, head, g.rows * i / groups, g.rows * (i + 1) / groups).attend();
  }
}

}  // namespace encodec_fast::EF_ISA
