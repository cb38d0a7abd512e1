// Element-wise steps between the products, and copies.
#include "cuda/kernels.h"
#include "cuda/launch.h"
#include "kernels/elements.h"

namespace encodec_fast::cuda {
namespace {

using namespace EF_ISA;

constexpr int kThreads = 256;

// Calls step(i) for this thread's elements of `count`; `blocks` blocks share them.
template <typename Step>
__device__ void for_each(int64_t count, unsigned blocks, Step step) {
  for (int64_t i = blockIdx.x % blocks * kThreads + threadIdx.x; i < count; i += blocks * kThreads)
    step(i);
}

__global__ void __launch_bounds__(kThreads) copy_parts(const Copy* copies, unsigned blocks) {
  const Copy part = copies[blockIdx.x / blocks];
  for_each(part.count, blocks,
           [&](int64_t i) { part.to[i] = part.from == nullptr ? 0.0f : part.from[i]; });
}

__global__ void __launch_bounds__(kThreads) activate_parts(const Elements* parts, unsigned blocks) {
  const Elements part = parts[blockIdx.x / blocks];
  for_each(part.count, blocks, [&](int64_t i) {
    Vec y = load(part.x + i);
    if (part.add != nullptr) y = y + load(part.add + i);
    if (part.out != nullptr) store(part.out + i, y);
    if (part.elu != nullptr) store(part.elu + i, elu(y));
  });
}

__global__ void __launch_bounds__(kThreads)
    take_parts(const Planar* parts, unsigned blocks, int64_t channels) {
  const Planar part = parts[blockIdx.x / blocks];
  const Vec scale = load(part.scale);
  for_each(part.count * channels, blocks, [&](int64_t i) {
    const int64_t row = i / channels;
    store(part.rows + i, load(part.planar + i % channels * part.count + row) / scale);
  });
}

__global__ void __launch_bounds__(kThreads)
    give_parts(const Planar* parts, unsigned blocks, int64_t channels) {
  const Planar part = parts[blockIdx.x / blocks];
  const Vec scale = load(part.scale);
  for_each(part.count * channels, blocks, [&](int64_t i) {
    const int64_t channel = i / part.count;
    store(part.planar + i, load(part.rows + i % part.count * channels + channel) * scale);
  });
}

__global__ void __launch_bounds__(kThreads) take_lanes(Signals s, float* rows, unsigned blocks) {
  const int64_t lane = blockIdx.x / blocks;
  const float* planar = s.planar + lane * s.channels * s.length;
  float* to = rows + lane * s.channels * s.count;
  for_each(s.count * s.channels, blocks,
           [&](int64_t i) { to[i] = planar[i % s.channels * s.length + i / s.channels]; });
}

__global__ void __launch_bounds__(kThreads)
    give_lanes(Signals s, const float* rows, unsigned blocks) {
  const int64_t lane = blockIdx.x / blocks;
  float* planar = s.planar + lane * s.channels * s.length;
  const float* from = rows + lane * s.channels * s.count;
  for_each(s.count * s.channels, blocks, [&](int64_t i) {
    const int64_t channel = i / s.count;
    const int64_t row = i % s.count;
    planar[channel * s.length + row] = from[row * s.channels + channel];
  });
}

}  // namespace

void require_code() {
  cudaFuncAttributes attributes = {};
  const cudaError_t error =
      cudaFuncGetAttributes(&attributes, reinterpret_cast<const void*>(copy_parts));
  if (error == cudaErrorNoKernelImageForDevice || error == cudaErrorInvalidDeviceFunction ||
      error == cudaErrorUnsupportedPtxVersion) {
    cudaGetLastError();
    throw DeviceError(
        "cuda: this build has no machine code for this device, and what it has instead the driver "
        "cannot translate; build it where the device is (docs/cuda.md)");
  }
  check(error, "loading a kernel");
}

void copy(const Copy* copies, int64_t copy_count, int64_t longest, cudaStream_t stream) {
  if (copy_count == 0 || longest == 0) return;
  const unsigned blocks = blocks_for(longest, kThreads);
  launch(copy_parts, blocks * copy_count, kThreads, 0, stream, copies, blocks);
}

void activate(const Elements* parts, int64_t part_count, int64_t longest, cudaStream_t stream) {
  if (part_count == 0 || longest == 0) return;
  const unsigned blocks = blocks_for(longest, kThreads);
  launch(activate_parts, blocks * part_count, kThreads, 0, stream, parts, blocks);
}

void take_planar(const Planar* parts, int64_t part_count, int64_t longest, int64_t channels,
                 cudaStream_t stream) {
  if (part_count == 0 || longest == 0) return;
  const unsigned blocks = blocks_for(longest * channels, kThreads);
  launch(take_parts, blocks * part_count, kThreads, 0, stream, parts, blocks, channels);
}

void give_planar(const Planar* parts, int64_t part_count, int64_t longest, int64_t channels,
                 cudaStream_t stream) {
  if (part_count == 0 || longest == 0) return;
  const unsigned blocks = blocks_for(longest * channels, kThreads);
  launch(give_parts, blocks * part_count, kThreads, 0, stream, parts, blocks, channels);
}

void take_signals(const Signals& s, float* rows, cudaStream_t stream) {
  if (s.count == 0) return;
  const unsigned blocks = static_cast<unsigned>(blocks_for(s.count * s.channels, kThreads));
  launch(take_lanes, s.lanes * blocks, kThreads, 0, stream, s, rows, blocks);
}

void give_signals(const Signals& s, const float* rows, cudaStream_t stream) {
  if (s.count == 0) return;
  const unsigned blocks = static_cast<unsigned>(blocks_for(s.count * s.channels, kThreads));
  launch(give_lanes, s.lanes * blocks, kThreads, 0, stream, s, rows, blocks);
}

}  // namespace encodec_fast::cuda
