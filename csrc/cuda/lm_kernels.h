// What the language model and its coder compute on a device, as the host asks for it (kernels.h).
// All pointers are of device memory; nothing waits.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "cuda/lm_weights.h"
#include "entropy/range_coder.h"

namespace encodec_fast::cuda {

// Consecutive steps of one stream. Entries of its keys and values are numbered as in
// docs/entropy.md: 0 is that of an all-zero input, step t makes entry t + 1.
struct LmRun {
  float*
      cache;  // of the stream: [layers][keys, values][heads][past][head_dim], entry e in e % past
  uint16_t* codes;  // [rows + 1][n_q], from the step before the first one on
  int64_t entry;    // that the first row makes
  int64_t begin;    // those of the stream in the same block: entries from `begin` on are in the
  int64_t end;      // block, those before in the cache
  int64_t rows;     // 0: a stream that rests
  int64_t first;    // rows of all runs before
};

struct LmRuns {
  const LmRun* runs;
  int64_t count, rows;  // rows of all runs
};

// out [rows][dim] = norm(sum of the embeddings of the codes of the step before) + position.
struct LmInput {
  LmRuns block;
  const float* embeddings;  // [n_q][entries + 1][dim]
  DeviceNorm norm;
  const double* rates;  // [dim / 2]
  int64_t n_q, entries, dim;
  float* out;
};
void embed(const LmInput& g, cudaStream_t stream);

// Layer norm of each row [dim]; out may be x.
void layer_norm(const float* x, const DeviceNorm& norm, int64_t rows, int64_t dim, float* out,
                cudaStream_t stream);

void gelu(float* x, int64_t count, cudaStream_t stream);

struct LmAttention {
  LmRuns block;
  int64_t run_rows;   // of a run, at most
  const float* qkv;   // [rows][3][heads][head_dim]
  const float* bias;  // [3][heads][head_dim]: keys and values of entry 0
  int64_t layer, heads, head_dim, past;
  float scale;
  float* out;  // [rows][heads][head_dim]
};
// Rows that a run may have.
int64_t attention_rows(int64_t past);
void attend(const LmAttention& g, cudaStream_t stream);
// Puts keys and values into the cache, for the blocks that follow.
void remember(const LmAttention& g, cudaStream_t stream);

// Distributions [rows][n_q][padded], `entries` values of each.
struct LmDistributions {
  float* p;
  int64_t rows, n_q, entries, padded;
};
void softmax(const LmDistributions& d, cudaStream_t stream);

// The intervals [rows][n_q] of the codes of each row. *bad becomes 1 where a distribution is not
// valid.
void find_intervals(const LmDistributions& d, const LmRuns& block, Interval* intervals, int* bad,
                    cudaStream_t stream);

// Rows of a block that belong to one stream.
struct LmSpan {
  int64_t stream, step;  // its first row is this step of the call
  int64_t first, rows;   // rows of the block
};
// Appends the intervals of each span to what its stream has written.
void write_codes(const LmSpan* spans, int64_t count, const Interval* intervals, int64_t n_q,
                 RangeWriter* writers, cudaStream_t stream);
void flush(RangeWriter* writers, int64_t count, cudaStream_t stream);

struct LmReader {
  RangeDecoder decoder;
  int64_t left;  // steps
  bool damaged;
};
// Reads the codes of one step of each run [d.rows] and takes it to the next one; a run whose steps
// are over, or whose data is damaged, rests.
void read_codes(const LmDistributions& d, LmRun* runs, LmReader* readers, cudaStream_t stream);

}  // namespace encodec_fast::cuda
