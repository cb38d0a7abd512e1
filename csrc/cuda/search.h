// Vector quantisation on arrays that are on the device already, PyTorch's say.
#pragma once

#include <cstdint>

#include "cuda/weights.h"

namespace encodec_fast::cuda {

// Addresses of contiguous arrays on the codebooks' device, and a cudaStream_t (0: the default one).
struct DeviceArrays {
  uintptr_t latents;  // float32 [rows][dim]
  int64_t rows, n_q;
  uintptr_t codes;   // uint16 [n_q][rows]
  uintptr_t stream;  // what produces the input, and will take the result, runs there
};

// As kernels/rvq.h. Encoding waits for the result only where entries are so wide that it needs
// memory of its own; decoding, because it says whether all codes were in range. They throw
// std::invalid_argument for sizes that are out of range, for an address that is not of that device
// or not aligned, and, decoding, for a code that is too large; DeviceError.
void rvq_encode(const DeviceBooks& books, const DeviceArrays& arrays);
void rvq_decode(const DeviceBooks& books, const DeviceArrays& arrays);

}  // namespace encodec_fast::cuda
