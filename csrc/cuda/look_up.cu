// The inverse of the search: sums of codebook entries.
#include "cuda/kernels.h"
#include "cuda/launch.h"
#include "kernels/elements.h"

namespace encodec_fast::cuda {
namespace {

using namespace EF_ISA;

constexpr int kThreads = 256;

__global__ void __launch_bounds__(kThreads)
    look_up(Books books, const Codes* parts, unsigned blocks, int64_t n_q, int* bad) {
  const Codes part = parts[blockIdx.x / blocks];
  const unsigned step = blocks * kThreads;
  for (int64_t i = blockIdx.x % blocks * kThreads + threadIdx.x; i < part.rows * books.dim;
       i += step) {
    const int64_t row = i / books.dim;
    const int64_t k = i - row * books.dim;
    Vec sum = {0.0f};
    for (int64_t q = 0; q < n_q; ++q) {
      int64_t code = part.codes[q * part.rows + row];
      if (code >= books.size) {
        *bad = 1;
        code = 0;
      }
      sum = sum + load(books.entries + (q * books.size + code) * books.dim + k);
    }
    store(part.latent + i, sum);
  }
}

}  // namespace

void rvq_decode(const Books& books, const Codes* parts, int64_t part_count, int64_t longest,
                int64_t n_q, int* bad, cudaStream_t stream) {
  if (part_count == 0 || longest == 0) return;
  const unsigned blocks = blocks_for(longest * books.dim, kThreads);
  launch(look_up, blocks * part_count, kThreads, 0, stream, books, parts, blocks, n_q, bad);
}

}  // namespace encodec_fast::cuda
