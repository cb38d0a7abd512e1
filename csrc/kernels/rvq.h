// Residual vector quantisation: nearest-neighbour search in all codebooks in one call, and its
// inverse.
#pragma once

#include <cstdint>

namespace encodec_fast {

// What the first pass with 8-bit integers needs of one codebook (kernels/shortlist.h).
inline constexpr int64_t kMostShortDim = 1024;  // sums of 8-bit products are exact as floats
inline constexpr int64_t kMostShortSize = 2048;
// The largest number of a row or an entry must be in this range, or zero: nothing underflows then.
inline constexpr float kLeastShort = 1e-10f, kMostShort = 1e10f;
inline constexpr float kRoundedUp = 1.001f;

struct alignas(64) ShortlistPanel {
  int32_t start[16];  // minus 128 times the sum of p: rows are stored with 128 added
  float step[16];     // b
  float norm[16];     // |e| rounded up
  float error[16];    // |x| and what rounding adds, per |a q|
};

struct RvqShortlist {
  const int8_t* bytes;  // p: [panel][dim / 4][16][4]
  const ShortlistPanel* panels;
  float slack;  // what rounding of |e|^2 / 2 adds to a difference of two scores
};

struct RvqCodebooks {
  // Per codebook: entries packed as a [dim][size] matrix in panels (kernels/gemm.h), then the flat
  // entries, then -|e|^2/2.
  const float* panels;     // [n_q][panel_floats]
  const float* entries;    // [n_q][size][dim]
  const float* half_norm;  // [n_q][padded size], minus half the squared norm; -inf in the padding
  int64_t panel_floats, padded_size;
  int64_t size, dim;
  const RvqShortlist* shortlists;  // [n_q], or nullptr where the first pass is not to be used
};

#ifdef EF_ISA
namespace EF_ISA {

// residual [rows][dim] is consumed; codes [n_q][code_stride], the first `rows` of each are written.
// Per codebook the entry with the largest chain(-|e|^2/2; r0*e0, r1*e1, ...) wins, ties go to the
// lowest index, and the entry is subtracted.
void rvq_encode(const RvqCodebooks& books, float* residual, int64_t rows, int64_t n_q,
                uint16_t* codes, int64_t code_stride) noexcept;

// latent [rows][dim] = entries of codebook 0, 1, ... added in that order. Codes must be below
// `size`.
void rvq_decode(const RvqCodebooks& books, const uint16_t* codes, int64_t code_stride, int64_t rows,
                int64_t n_q, float* latent) noexcept;

}  // namespace EF_ISA
#endif
}  // namespace encodec_fast
