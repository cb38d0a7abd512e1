// How kernels are started and find their shared memory. Kernels are plain functions of a thread:
// tests compile them for the host as well, where a loop stands for the device
// (tests/cuda/emulation).
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>

#include "cuda/runtime.h"

namespace encodec_fast::cuda {

template <typename T>
struct AsIs {
  using type = T;
};

template <typename... P>
void launch(void (*kernel)(P...), int64_t blocks, int threads, size_t shared, cudaStream_t stream,
            typename AsIs<P>::type... arguments) {
  constexpr size_t kWithoutAsking = 48 << 10;
  if (blocks > INT32_MAX) throw DeviceError("cuda: more work in one call than a grid has blocks");
  if (shared > kWithoutAsking) {
    const auto ask = [kernel](cudaFuncAttribute what, int value) {
      check(cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel), what, value),
            "asking for shared memory");
    };
    ask(cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shared));
    // As much of what it shares with the first cache level as there is, for all blocks that fit.
    ask(cudaFuncAttributePreferredSharedMemoryCarveout, 100);
  }
#ifdef __CUDACC__
  kernel<<<static_cast<unsigned>(blocks), static_cast<unsigned>(threads), shared, stream>>>(
      arguments...);
#else
  emulated::launch(stream, static_cast<unsigned>(blocks), static_cast<unsigned>(threads), shared,
                   [=] { kernel(arguments...); });
#endif
  check(cudaGetLastError(), "starting a kernel");
}

// The block's shared memory.
template <typename T>
__device__ inline T* shared_memory() {
#ifdef __CUDACC__
  extern __shared__ __align__(16) unsigned char bytes[];
  return reinterpret_cast<T*>(bytes);
#else
  return reinterpret_cast<T*>(emulated::shared_memory());
#endif
}

// Which of the parts low..high - 1 has row `row` of all: the last one whose `first` is not above.
template <typename T>
__device__ inline int64_t part_of(const T* parts, int64_t low, int64_t high, int64_t row) {
  while (high - low > 1) {
    const int64_t middle = (low + high) / 2;
    if (parts[middle].first <= row) {
      low = middle;
    } else {
      high = middle;
    }
  }
  return low;
}

// Which of all `count` parts.
template <typename T>
__device__ inline int64_t part_of(const T* parts, int64_t count, int64_t row) {
  return part_of(parts, 0, count, row);
}

// Blocks per part for a loop over `longest` elements. Divided by in every thread, and so of 32
// bits: a division of 64 takes longer than a thread's elements.
inline unsigned blocks_for(int64_t longest, int threads) {
  constexpr int64_t kEach = 4;    // elements of a thread
  constexpr int64_t kMost = 512;  // parts can be many
  const int64_t blocks = (longest + threads * kEach - 1) / (threads * kEach);
  return static_cast<unsigned>(blocks < 1 ? 1 : blocks > kMost ? kMost : blocks);
}

}  // namespace encodec_fast::cuda
