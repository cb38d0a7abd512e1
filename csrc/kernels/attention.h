// Attention of new entries over a stream's cache of keys and values.
#pragma once

#include <cstdint>

#include "kernels/gemm.h"

namespace encodec_fast {

// Rows whose scores are held at once.
inline constexpr int64_t kAttentionRows = 6;
// Floats behind the last value that are read, though never used.
inline constexpr int64_t kValueSlack = 2 * kPanel;

// Entries are counted from the start of the stream; entry e lies in slot e % slots.
struct AttentionArgs {
  const float* qkv;  // [rows][3][heads][head_dim]: queries, keys and values of the new entries
  float* keys;       // [heads][slots / kPanel][head_dim][kPanel]
  float* values;     // [heads][slots][head_dim], and kValueSlack floats
  int64_t slots;     // a multiple of kPanel, at least reach + rows + kPanel
  int64_t heads, head_dim;
  int64_t first, rows;  // the new entries
  int64_t reach;        // an entry sees itself and this many before it, from entry 0 on
  float scale;
  float* scores;  // [kAttentionRows][slots], overwritten
  float* out;     // [rows][heads][head_dim]
};

#ifdef EF_ISA
namespace EF_ISA {
// Puts the keys and values of the new entries into their slots.
void remember(const AttentionArgs& args) noexcept;

// For each new entry and head, over the entries it sees in increasing order: the score of a key is
// one chain of fused multiply-adds over the channels from 0, times scale; the terms and their sum
// are softmax_terms of the scores; a channel of the result is one chain term * value over the
// entries from 0, divided by the sum.
void attend(const AttentionArgs& args) noexcept;
}  // namespace EF_ISA
#endif

}  // namespace encodec_fast
