#include "kernels/gemm.h"

#include "kernels/elementary.h"
#include "kernels/thin.h"

namespace encodec_fast::EF_ISA {
namespace {

template <typename W>
class Product {
 public:
  static constexpr int kRows = kRowsWith<W>;

  Product(const GemmArgs& args, const W* panels) noexcept
      : g(args), panels_(panels), depth_(padded_depth<W>(args.k)) {}

  void begin(int64_t panel) noexcept {
    column_ = panel * kPanel;
    part_ = g.parts;
    row_ = 0;
  }

  template <int R, int P>
  void run() noexcept {
    const float* a[R];
    const GemmPart* part[R];
    int64_t row[R];
    const GemmPart* from = part_;
    int64_t i = row_;
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r, ++i) {
      while (i == from->m) {
        ++from;
        i = 0;
      }
      part[r] = from;
      row[r] = i * g.n + column_;
      a[r] = from->a + i * g.a_stride;
    }
    part_ = from;
    row_ = i;
    const int64_t width = g.n - column_;
    const W* w = panels_ + column_ * depth_;
    Accumulators<R, P> acc;
    if (width >= P * kPanel) {
      begin_chains<R, P>(part, row, [](const float* p, int64_t) { return load(p); }, acc);
      chains<R, P>(w, g.k, a, acc);
      end_chains<R, P>(
          part, row, [](const float* p, int64_t) { return load(p); },
          [](float* p, Vec x, int64_t) { store(p, x); }, acc);
      return;
    }
    // The last columns of a matrix whose width is no multiple of a panel.
    const auto load_some = [width](const float* p, int64_t j) {
      return width - j >= kLanes ? load(p) : load_part(p, width - j);
    };
    const auto store_some = [width](float* p, Vec x, int64_t j) {
      if (width - j >= kLanes) return store(p, x);
      store_part(p, x, width - j);
    };
    begin_chains<R, P>(part, row, load_some, acc);
    chains<R, P>(w, g.k, a, acc);
    end_chains<R, P>(part, row, load_some, store_some, acc);
  }

 private:
  // The load and store functions also get the column within the tile.
  template <int R, int P, typename Load>
  void begin_chains(const GemmPart* const (&part)[R], const int64_t (&row)[R], Load get,
                    Accumulators<R, P>& acc) const noexcept {
    if (g.bias == nullptr) {
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) {
        const float* from = part[r]->out + row[r];
#pragma GCC unroll 16
        for (int i = 0; i < P * kVecs; ++i)
          acc[r][i / kVecs][i % kVecs] = get(from + i * kLanes, i * kLanes);
      }
      return;
    }
#pragma GCC unroll 16
    for (int i = 0; i < P * kVecs; ++i) {
      const Vec start = get(g.bias + column_ + i * kLanes, i * kLanes);
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) acc[r][i / kVecs][i % kVecs] = start;
    }
  }

  template <int R, int P, typename Load, typename Store>
  static void end_chains(const GemmPart* const (&part)[R], const int64_t (&row)[R], Load get,
                         Store put, Accumulators<R, P>& acc) noexcept {
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      Vec y[P * kVecs];
#pragma GCC unroll 16
      for (int i = 0; i < P * kVecs; ++i) y[i] = acc[r][i / kVecs][i % kVecs];
      if (part[r]->add != nullptr) {
        const float* from = part[r]->add + row[r];
#pragma GCC unroll 16
        for (int i = 0; i < P * kVecs; ++i) y[i] = y[i] + get(from + i * kLanes, i * kLanes);
      }
      if (part[r]->out != nullptr) {
        float* to = part[r]->out + row[r];
#pragma GCC unroll 16
        for (int i = 0; i < P * kVecs; ++i) put(to + i * kLanes, y[i], i * kLanes);
      }
      if (part[r]->elu != nullptr) {
        float* to = part[r]->elu + row[r];
#pragma GCC unroll 16
        for (int i = 0; i < P * kVecs; ++i) put(to + i * kLanes, elu(y[i]), i * kLanes);
      }
    }
  }

  const GemmArgs& g;
  const W* panels_;
  int64_t depth_;  // rows of a panel
  int64_t column_ = 0;
  const GemmPart* part_ = nullptr;
  int64_t row_ = 0;
};

template <typename W>
void run(const GemmArgs& g, const W* panels) noexcept {
  int64_t m = 0;
  for (int64_t i = 0; i < g.part_count; ++i) m += g.parts[i].m;
  if (m == 0) return;
  if (m >= kThinRows * g.part_count && is_thin(g)) return run_thin(g, panels);
  Product<W> product(g, panels);
  run_tiles(m, (g.n + kPanel - 1) / kPanel, g.backward, product);
}

}  // namespace

void gemm(const GemmArgs& g) noexcept {
  if (g.panels16 != nullptr) return run(g, g.panels16);
  run(g, g.panels);
}

}  // namespace encodec_fast::EF_ISA
