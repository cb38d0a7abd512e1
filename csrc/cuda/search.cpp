#include "cuda/search.h"

#include <string>

#include "engine/require.h"

namespace encodec_fast::cuda {
namespace {

constexpr int64_t kFloat = sizeof(float);

cudaStream_t open(const DeviceBooks& books, const DeviceArrays& a) {
  constexpr int64_t kMostRows = int64_t{1} << 36;
  require_in("rows", a.rows, 0, kMostRows);
  require_in("n_q", a.n_q, 1, books.n_q());
  use_device(books.device());
  if (a.rows > 0) {
    constexpr int64_t kCode = sizeof(uint16_t);
    require_memory("latents", a.latents, a.rows * books.view().dim * kFloat, kFloat,
                   books.device());
    require_memory("codes", a.codes, a.rows * a.n_q * kCode, kCode, books.device());
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
  if (scratch.size() > 0) check(cudaStreamSynchronize(stream), "searching codebooks");
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
