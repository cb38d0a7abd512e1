#include "kernels/activations.h"

#include "kernels/elements.h"

namespace encodec_fast::EF_ISA {
void activate(const float* x, const float* add, float* out, float* elu_out, int64_t n) noexcept {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    Vec y = load(x + i);
    if (add != nullptr) y = y + load(add + i);
    if (out != nullptr) store(out + i, y);
    if (elu_out != nullptr) store(elu_out + i, elu(y));
  }
  if (i == n) return;
  Vec y = load_part(x + i, n - i);
  if (add != nullptr) y = y + load_part(add + i, n - i);
  if (out != nullptr) store_part(out + i, y, n - i);
  if (elu_out != nullptr) store_part(elu_out + i, elu(y), n - i);
}

void gelu(float* x, int64_t n) noexcept {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) store(x + i, gelu(load(x + i)));
  if (i < n) store_part(x + i, gelu(load_part(x + i, n - i)), n - i);
}

void lstm_cell(const float* gates, float* cell, float* out, int64_t hidden) noexcept {
  int64_t j = 0;
  for (; j + kLanes <= hidden; j += kLanes) {
    const float* g = gates + j;
    const Cell next = lstm_step(load(g), load(g + hidden), load(g + 2 * hidden),
                                load(g + 3 * hidden), load(cell + j));
    store(cell + j, next.cell);
    store(out + j, next.out);
  }
  if (j == hidden) return;
  const int64_t rest = hidden - j;
  const float* g = gates + j;
  const Cell next =
      lstm_step(load_part(g, rest), load_part(g + hidden, rest), load_part(g + 2 * hidden, rest),
                load_part(g + 3 * hidden, rest), load_part(cell + j, rest));
  store_part(cell + j, next.cell, rest);
  store_part(out + j, next.out, rest);
}

}  // namespace encodec_fast::EF_ISA
