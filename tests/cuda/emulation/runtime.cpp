// The runtime's functions.
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>

#include "cuda_runtime.h"
#include "streams.h"

namespace emulated {

void run(unsigned blocks, unsigned threads, size_t shared, const std::function<void()>& kernel);

namespace {

constexpr size_t kGuard = 64;  // keeps allocations aligned as a device's are

thread_local cudaError_t last = cudaSuccess;
std::atomic<bool> broken{false};
std::atomic<long> counts[4];  // of malloc, launch, pointer

// Whether this call is the one that EF_EMULATED_FAIL names.
bool fails(const char* name, std::atomic<long>& count) {
  const char* wish = std::getenv("EF_EMULATED_FAIL");
  if (wish == nullptr) return false;
  const std::string text = wish;
  const size_t colon = text.find(':');
  if (text.substr(0, colon) != name) return false;
  return ++count == std::strtol(text.c_str() + colon + 1, nullptr, 10);
}

cudaError_t result(cudaError_t error) {
  if (broken) error = cudaErrorIllegalAddress;
  if (error != cudaSuccess) last = error;
  return error;
}

}  // namespace

void launch(void* stream, unsigned blocks, unsigned threads, size_t shared, Work kernel) {
  if (broken) return;
  if (fails("launch", counts[1])) {
    broken = true;
    return;
  }
  if (blocks == 0) {
    result(cudaErrorInvalidValue);
    return;
  }
  queue(stream, [=] { run(blocks, threads, shared, kernel); });
}

}  // namespace emulated

using namespace emulated;

cudaError_t cudaGetLastError() {
  const cudaError_t error = broken ? cudaErrorIllegalAddress : last;
  last = cudaSuccess;
  return error;
}
const char* cudaGetErrorString(cudaError_t error) {
  switch (error) {
    case cudaSuccess:
      return "no error";
    case cudaErrorMemoryAllocation:
      return "out of memory";
    case cudaErrorIllegalAddress:
      return "an illegal memory access was encountered";
    default:
      return "invalid argument";
  }
}
cudaError_t cudaDriverGetVersion(int* version) {
  const char* wish = std::getenv("EF_EMULATED_FAIL");
  *version = wish != nullptr && std::string(wish) == "driver"     ? 11040
             : wish != nullptr && std::string(wish) == "nodriver" ? 0
                                                                  : 13000;
  return cudaSuccess;
}
cudaError_t cudaRuntimeGetVersion(int* version) {
  *version = 13000;
  return cudaSuccess;
}
cudaError_t cudaGetDeviceCount(int* count) {
  const char* wish = std::getenv("EF_EMULATED_FAIL");
  *count = 1;
  if (wish != nullptr && std::string(wish) == "device") return result(cudaErrorNoDevice);
  if (wish != nullptr && std::string(wish) == "fork") return result(cudaErrorInitializationError);
  return result(cudaSuccess);
}
cudaError_t cudaSetDevice(int device) {
  return result(device == 0 ? cudaSuccess : cudaErrorInvalidValue);
}
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int) {
  *properties = {};
  std::strcpy(properties->name, "emulated");
  properties->major = 8;
  // EF_EMULATED_PROCESSORS: few let small products run in the large tiles.
  const char* processors = std::getenv("EF_EMULATED_PROCESSORS");
  properties->multiProcessorCount = processors == nullptr ? 4 : std::atoi(processors);
  properties->totalGlobalMem = size_t{1} << 34;
  return result(cudaSuccess);
}
cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* attributes, const void*) {
  const bool host = fails("pointer", counts[2]);
  *attributes = {host ? cudaMemoryTypeUnregistered : cudaMemoryTypeDevice, 0};
  return result(cudaSuccess);
}
cudaError_t cudaMalloc(void** pointer, size_t bytes) {
  if (fails("malloc", counts[0])) return result(cudaErrorMemoryAllocation);
  *pointer = std::aligned_alloc(kGuard, (bytes + kGuard - 1) / kGuard * kGuard);
  if (*pointer == nullptr) return result(cudaErrorMemoryAllocation);
  std::memset(*pointer, 0xff, bytes);
  return result(cudaSuccess);
}
cudaError_t cudaFree(void* pointer) {
  finish_all();  // as a device's does, for memory that may be in use
  std::free(pointer);
  return result(cudaSuccess);
}
cudaError_t cudaMallocHost(void** pointer, size_t bytes) {
  const cudaError_t error = cudaMalloc(pointer, bytes);
  if (error == cudaSuccess) add_pinned(*pointer, bytes);
  return error;
}
cudaError_t cudaFreeHost(void* pointer) {
  remove_pinned(pointer);
  return cudaFree(pointer);
}
cudaError_t cudaMemGetInfo(size_t* free, size_t* total) {
  *free = 0;
  *total = size_t{1} << 34;
  return result(cudaSuccess);
}
cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t stream) {
  queue(stream, [=] { std::memcpy(to, from, bytes); });
  const bool host_waits = (kind == cudaMemcpyHostToDevice && !is_pinned(from)) ||
                          (kind == cudaMemcpyDeviceToHost && !is_pinned(to));
  if (host_waits) finish(stream);
  return result(cudaSuccess);
}
cudaError_t cudaMemcpy2DAsync(void* to, size_t to_pitch, const void* from, size_t from_pitch,
                              size_t width, size_t height, cudaMemcpyKind, cudaStream_t stream) {
  queue(stream, [=] {
    for (size_t i = 0; i < height; ++i) {
      std::memcpy(static_cast<char*>(to) + i * to_pitch,
                  static_cast<const char*>(from) + i * from_pitch, width);
    }
  });
  return result(cudaSuccess);
}
cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  *stream = new_stream();
  return result(cudaSuccess);
}
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  finish(stream);
  return result(cudaSuccess);
}
cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  finish(stream);
  return result(cudaSuccess);
}
cudaError_t cudaStreamIsCapturing(cudaStream_t stream, cudaStreamCaptureStatus* status) {
  *status =
      stream_of(stream)->recording ? cudaStreamCaptureStatusActive : cudaStreamCaptureStatusNone;
  return result(cudaSuccess);
}
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
  *event = new Event;
  return result(cudaSuccess);
}
cudaError_t cudaEventDestroy(cudaEvent_t event) {
  delete static_cast<Event*>(event);
  return result(cudaSuccess);
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  *static_cast<Event*>(event) = record(stream);
  return result(cudaSuccess);
}
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
  wait(stream, *static_cast<Event*>(event));
  return result(cudaSuccess);
}
cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* attributes, const void*) {
  *attributes = {32};
  const char* wish = std::getenv("EF_EMULATED_FAIL");
  if (wish != nullptr && std::string(wish) == "code")
    return result(cudaErrorNoKernelImageForDevice);
  return result(cudaSuccess);
}
cudaError_t cudaFuncSetAttribute(const void*, cudaFuncAttribute, int) {
  return result(cudaSuccess);
}
cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode) {
  stream_of(stream)->recording = std::make_unique<Recording>();
  return result(cudaSuccess);
}
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  *graph = stream_of(stream)->recording.release();
  return result(cudaSuccess);
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t* exec, cudaGraph_t graph, unsigned long long) {
  *exec = new Recording(*static_cast<Recording*>(graph));
  return result(cudaSuccess);
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream) {
  for (const Work& work : *static_cast<Recording*>(exec)) queue(stream, work);
  return result(cudaSuccess);
}
cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  delete static_cast<Recording*>(graph);
  return result(cudaSuccess);
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec) {
  delete static_cast<Recording*>(exec);
  return result(cudaSuccess);
}
