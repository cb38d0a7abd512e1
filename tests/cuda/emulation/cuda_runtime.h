// The part of the CUDA runtime that csrc/cuda uses, on the host, for tests of what the kernels
// compute and of how they are driven, where there is no GPU. Every thread of a block is a fiber;
// __syncthreads() hands over to the next one. The order in which they run is an option
// (EF_EMULATED_ORDER=forward|backward|shuffled), as is that of the blocks, so that a missing
// barrier shows as another result, and blocks that are not independent do. Device and shared memory
// begin as not-a-numbers, and are exactly as large as asked for, so that AddressSanitizer sees what
// a kernel reaches beyond them.
//
// EF_EMULATED_FAIL=NAME:N lets the N-th call (from 1) of a function fail: malloc (out of memory),
// launch (an illegal address, which like a device's stays), pointer (memory of the host), driver
// (an old one), device (none), fork (a driver that does not start), code (no machine code for the
// device). When the work of streams is done is an option, too: streams.h.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>

#define EF_EMULATED 1
#define __global__
#define __device__
#define __host__
#define __launch_bounds__(...)

struct float4 {
  float x, y, z, w;
};
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }

namespace emulated {

struct Index {
  unsigned x = 0;
};
// __thread, as thread_local calls a function at each use: it may have to be constructed.
extern __thread Index thread_index, block_index;

[[noreturn]] void give_up(const char* why);
void* shared_memory();
void barrier();
// Of the 32 threads of a warp, all of which must come to it.
void warp_barrier();
// Gives `mine` to the others of the warp and returns what thread `lane` of it has given.
uint64_t exchange(uint64_t mine, int lane);
// Runs, or records where the stream is being captured.
void launch(void* stream, unsigned blocks, unsigned threads, size_t shared,
            std::function<void()> kernel);

}  // namespace emulated

#define threadIdx (::emulated::thread_index)
#define blockIdx (::emulated::block_index)
inline void __syncthreads() { emulated::barrier(); }
template <typename T>
T __ldg(const T* p) {
  return *p;
}
inline void __syncwarp() { emulated::warp_barrier(); }

namespace emulated {

template <typename T>
T shuffle(unsigned mask, T mine, int lane) {
  static_assert(sizeof(T) <= sizeof(uint64_t), "one register or two");
  if (mask != 0xffffffffu) give_up("this knows whole warps only");
  uint64_t bits = 0;
  std::memcpy(&bits, &mine, sizeof mine);
  bits = exchange(bits, lane);
  std::memcpy(&mine, &bits, sizeof mine);
  return mine;
}
inline int lane() { return static_cast<int>(thread_index.x % 32); }

}  // namespace emulated

// As on a device, a thread that asks for one beyond the warp's ends gets its own.
template <typename T>
T __shfl_sync(unsigned mask, T mine, int lane) {
  return emulated::shuffle(mask, mine, lane % 32);
}
template <typename T>
T __shfl_xor_sync(unsigned mask, T mine, int with) {
  return emulated::shuffle(mask, mine, emulated::lane() ^ with);
}
template <typename T>
T __shfl_up_sync(unsigned mask, T mine, unsigned by) {
  const int from = emulated::lane() - static_cast<int>(by);
  return emulated::shuffle(mask, mine, from < 0 ? emulated::lane() : from);
}
inline unsigned __ballot_sync(unsigned mask, int predicate) {
  unsigned votes = 0;
  for (int lane = 0; lane < 32; ++lane)
    votes |= emulated::shuffle(mask, predicate != 0 ? 1u : 0u, lane) << lane;
  return votes;
}
inline int __ffs(int x) { return __builtin_ffs(x); }

enum cudaError_t {
  cudaSuccess = 0,
  cudaErrorMemoryAllocation = 2,
  cudaErrorInitializationError = 3,
  cudaErrorInsufficientDriver = 35,
  cudaErrorInvalidDeviceFunction = 98,
  cudaErrorNoDevice = 100,
  cudaErrorInvalidValue = 1,
  cudaErrorNoKernelImageForDevice = 209,
  cudaErrorUnsupportedPtxVersion = 222,
  cudaErrorIllegalAddress = 700,
};
enum cudaMemcpyKind { cudaMemcpyHostToDevice, cudaMemcpyDeviceToHost, cudaMemcpyDeviceToDevice };
enum cudaMemoryType {
  cudaMemoryTypeUnregistered,
  cudaMemoryTypeDevice = 2,
  cudaMemoryTypeManaged = 3
};
enum { cudaStreamNonBlocking = 1 };
enum { cudaEventDisableTiming = 2 };
enum cudaStreamCaptureMode { cudaStreamCaptureModeThreadLocal = 1 };
enum cudaStreamCaptureStatus { cudaStreamCaptureStatusNone, cudaStreamCaptureStatusActive };
enum cudaFuncAttribute {
  cudaFuncAttributeMaxDynamicSharedMemorySize = 8,
  cudaFuncAttributePreferredSharedMemoryCarveout = 9
};

struct cudaDeviceProp {
  char name[256];
  int major, minor, multiProcessorCount;
  size_t totalGlobalMem;
};
struct cudaFuncAttributes {
  int numRegs;
};
struct cudaPointerAttributes {
  cudaMemoryType type;
  int device;
};
using cudaStream_t = void*;
using cudaEvent_t = void*;
using cudaGraph_t = void*;
using cudaGraphExec_t = void*;

cudaError_t cudaGetLastError();
const char* cudaGetErrorString(cudaError_t error);
cudaError_t cudaDriverGetVersion(int* version);
cudaError_t cudaRuntimeGetVersion(int* version);
cudaError_t cudaGetDeviceCount(int* count);
cudaError_t cudaSetDevice(int device);
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device);
cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* attributes, const void* pointer);
cudaError_t cudaMalloc(void** pointer, size_t bytes);
cudaError_t cudaFree(void* pointer);
cudaError_t cudaMallocHost(void** pointer, size_t bytes);
cudaError_t cudaFreeHost(void* pointer);
cudaError_t cudaMemGetInfo(size_t* free, size_t* total);
cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t stream);
cudaError_t cudaMemcpy2DAsync(void* to, size_t to_pitch, const void* from, size_t from_pitch,
                              size_t width, size_t height, cudaMemcpyKind kind,
                              cudaStream_t stream);
cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned flags);
cudaError_t cudaStreamDestroy(cudaStream_t stream);
cudaError_t cudaStreamSynchronize(cudaStream_t stream);
cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* attributes, const void* kernel);
cudaError_t cudaStreamIsCapturing(cudaStream_t stream, cudaStreamCaptureStatus* status);
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned flags);
cudaError_t cudaEventDestroy(cudaEvent_t event);
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream);
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned flags);
cudaError_t cudaFuncSetAttribute(const void* kernel, cudaFuncAttribute attribute, int value);
cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode);
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph);
cudaError_t cudaGraphInstantiate(cudaGraphExec_t* exec, cudaGraph_t graph, unsigned long long);
cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream);
cudaError_t cudaGraphDestroy(cudaGraph_t graph);
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec);
