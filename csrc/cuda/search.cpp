#include "cuda/search.h"

#include <string>

#include "engine/require.h"

namespace encodec_fast::cuda {
namespace {

void require_address(const char* name, uintptr_t address, size_t alignment, int device) {
  require(address != 0 && address % alignment == 0,
          std::string(name) + ": expected an address aligned to " + std::to_string(alignment) +
              " bytes, found " + std::to_string(address));
  cudaPointerAttributes attributes = {};
  const cudaError_t error =
      cudaPointerGetAttributes(&attributes, reinterpret_cast<const void*>(address));
  if (error != cudaErrorInvalidValue) check(error, "asking for a pointer");
  if (error != cudaSuccess) cudaGetLastError();
  const bool there =
      error == cudaSuccess && attributes.device == device &&
      (attributes.type == cudaMemoryTypeDevice || attributes.type == cudaMemoryTypeManaged);
  require(there, std::string(name) + ": expected memory of cuda:" + std::to_string(device));
}

cudaStream_t open(const DeviceBooks& books, const DeviceArrays& a) {
  constexpr int64_t kMostRows = int64_t{1} << 36;
  require_in("rows", a.rows, 0, kMostRows);
  require_in("n_q", a.n_q, 1, books.n_q());
  use_device(books.device());
  if (a.rows > 0) {
    require_address("latents", a.latents, sizeof(float), books.device());
    require_address("codes", a.codes, sizeof(uint16_t), books.device());
  }
  return reinterpret_cast<cudaStream_t>(a.stream);
}

}  // namespace

void rvq_encode(const DeviceBooks& books, const DeviceArrays& a) {
  const cudaStream_t stream = open(books, a);
  DeviceMemory scratch;
  scratch.reserve(static_cast<size_t>(rvq_scratch(books.view(), a.rows)));
  rvq_encode(books.view(), reinterpret_cast<const float*>(a.latents), a.rows, a.n_q,
             reinterpret_cast<uint16_t*>(a.codes), a.rows, scratch.floats(),
             books.multiprocessors(), stream);
  check(cudaStreamSynchronize(stream), "searching codebooks");
}

void rvq_decode(const DeviceBooks& books, const DeviceArrays& a) {
  const cudaStream_t stream = open(books, a);
  if (a.rows == 0) return;
  struct Shared {
    Codes part;
    int bad;
  };
  const Shared start = {
      {reinterpret_cast<const uint16_t*>(a.codes), reinterpret_cast<float*>(a.latents), a.rows}, 0};
  DeviceMemory memory;
  memory.reserve(sizeof(Shared));
  auto* shared = reinterpret_cast<Shared*>(memory.bytes());
  check(cudaMemcpyAsync(shared, &start, sizeof start, cudaMemcpyHostToDevice, stream),
        "copying to the device");
  rvq_decode(books.view(), &shared->part, 1, a.rows, a.n_q, &shared->bad, stream);
  Shared end = {};
  check(cudaMemcpyAsync(&end, shared, sizeof end, cudaMemcpyDeviceToHost, stream),
        "copying from the device");
  check(cudaStreamSynchronize(stream), "looking up codes");
  require(end.bad == 0,
          "codes: expected values below " + std::to_string(books.view().size) + ", found others");
}

}  // namespace encodec_fast::cuda
