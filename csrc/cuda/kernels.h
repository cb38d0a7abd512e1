// What the device computes, as the host asks for it. All pointers are of device memory; nothing
// waits. Which element of which array a part stands for is decided on the host (executor.h).
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace encodec_fast::cuda {

// Throws DeviceError, saying so, if this build's kernels cannot run on the current device.
void require_code();

// Consecutive rows of one stream (kernels/gemm.h).
struct Part {
  const float* a;    // row i starts at a + i * a_stride
  const float* add;  // [m][n] or nullptr
  float* out;        // [m][n] or nullptr
  float* elu;        // [m][n] or nullptr
  int64_t m;         // at least 1
  int64_t first;     // rows of all parts before it
};

// Every output is chain(bias; a[0] * w[0], a[1] * w[1], ...) (+ add), as on the CPU.
struct Product {
  const Part* parts;
  int64_t part_count, rows;  // rows of all parts
  int64_t a_stride, n, k;
  const float* panels;  // [ceil(n / 16)][k][16] (kernels/gemm.h)
  const float* bias;    // [n rounded up to panels]
  bool reads_vectors;   // every a is aligned to 16 bytes; a_stride and k are multiples of 4
  bool writes_vectors;  // the same of add, out, elu and n
};
void gemm(const Product& g, int multiprocessors, cudaStream_t stream);

// to[i] = from[i], or 0 where from is null. No two of one call overlap.
struct Copy {
  const float* from;
  float* to;
  int64_t count;
};
void copy(const Copy* copies, int64_t copy_count, int64_t longest, cudaStream_t stream);

// y = x (+ add); out = y and elu = ELU(y), each unless it is null.
struct Elements {
  const float* x;
  const float* add;
  float* out;
  float* elu;
  int64_t count;
};
void activate(const Elements* parts, int64_t part_count, int64_t longest, cudaStream_t stream);

// Planar [channels][count] to rows [count][channels], divided by *scale, and back, multiplied.
struct Planar {
  float* planar;
  float* rows;
  const float* scale;
  int64_t count;
};
void take_planar(const Planar* parts, int64_t part_count, int64_t longest, int64_t channels,
                 cudaStream_t stream);
void give_planar(const Planar* parts, int64_t part_count, int64_t longest, int64_t channels,
                 cudaStream_t stream);

// `count` values of each channel of some signals of one length: planar[lane][channel][i], whose
// channels lie `length` values apart, to rows [lane][i][channel], and back.
struct Signals {
  float* planar;
  int64_t length, lanes, channels, count;
};
void take_signals(const Signals& s, float* rows, cudaStream_t stream);
void give_signals(const Signals& s, const float* rows, cudaStream_t stream);

// One LSTM layer of one stream over a block.
struct LstmPart {
  const float* gates;  // [rows][4 * hidden]: the chains over the input
  float* hidden;       // [rows + 1][hidden]: h before each step, and after the last
  float* cell;         // [hidden]
  int64_t rows;
};
struct LstmStep {
  const LstmPart* parts;
  int64_t part_count, step, hidden;
  const float4* recurrent;  // [hidden][hidden] of the gates i, f, g, o
};
void lstm_step(const LstmStep& s, cudaStream_t stream);

// Group norm of one block's product.
struct NormPart {
  const float* x;  // [rows][channels] that count
  int64_t count;   // elements
  int64_t first;   // reduction blocks of all parts before it
  float* norm;     // [1 + channels]: mean; scale / standard deviation
};
struct Moment {
  float sum, mean, squares;
};
struct Moments {
  const NormPart* parts;
  int64_t part_count, blocks;  // blocks of all parts
  int64_t channels;
  Moment* moments;     // [blocks]
  const float* scale;  // [channels]
  float eps;
};
void moments(const Moments& m, cudaStream_t stream);

// y = fma(x - mean, scale, offset) (+ add); out = y and elu = ELU(y), each unless it is null.
struct Normalized {
  const float* x;
  const float* norm;
  const float* add;
  float* out;
  float* elu;
  int64_t count;
};
void normalize(const Normalized* parts, int64_t part_count, int64_t longest, const float* offset,
               int64_t channels, cudaStream_t stream);

struct Books {
  const float* panels;     // [n_q][padded size / 16][dim][16]
  const float* entries;    // [n_q][size][dim]
  const float* half_norm;  // [n_q][padded size]
  int64_t padded_size, size, dim;
};
// Bytes of `scratch` that rvq_encode needs for `rows`.
int64_t rvq_scratch(const Books& books, int64_t rows);
// latents [rows][dim]; codes [n_q][code_stride], the first `rows` of each are written.
void rvq_encode(const Books& books, const float* latents, int64_t rows, int64_t n_q,
                uint16_t* codes, int64_t code_stride, float* scratch, int multiprocessors,
                cudaStream_t stream);

// latent[i] = entries of codebook 0, 1, ... added in that order; *bad becomes 1 where a code is not
// below `size` (it then counts as 0).
struct Codes {
  const uint16_t* codes;  // [n_q][rows]
  float* latent;          // [rows][dim]
  int64_t rows;
};
void rvq_decode(const Books& books, const Codes* parts, int64_t part_count, int64_t longest,
                int64_t n_q, int* bad, cudaStream_t stream);

}  // namespace encodec_fast::cuda
