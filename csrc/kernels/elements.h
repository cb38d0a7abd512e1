// Steps of single elements beside the functions of elementary.h, shared by the kernels of every
// instruction set and by CUDA's. For kernel sources.
#pragma once

#include <cstdint>

#include "kernels/elementary.h"

namespace encodec_fast::EF_ISA {

struct Cell {
  Vec cell, out;
};

// One LSTM step of its gates, before their activations: c = fma(f, c, i * g), out = o * tanh(c).
EF_BOTH inline Cell lstm_step(Vec i, Vec f, Vec g, Vec o, Vec cell) noexcept {
  const Vec c = fma(sigmoid(f), cell, sigmoid(i) * tanh(g));
  return {c, sigmoid(o) * tanh(c)};
}

// The last step of a norm.
EF_BOTH inline Vec normed(Vec x, Vec mean, Vec scale, Vec offset) noexcept {
  return fma(x - mean, scale, offset);
}

// Whether an entry is a better one than the best so far: ties go to the lower index; a score that
// is not a number never is.
EF_BOTH inline bool takes_lead(float score, int64_t index, float best,
                               int64_t best_index) noexcept {
  return score > best || (score == best && index < best_index);
}

}  // namespace encodec_fast::EF_ISA
