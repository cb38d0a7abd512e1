#include "cuda/runtime.h"

#include <algorithm>

namespace encodec_fast::cuda {
namespace {

std::string version(int number) {
  return std::to_string(number / 1000) + "." + std::to_string(number % 1000 / 10);
}

}  // namespace

void check(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return;
  // Takes it from the runtime, which would else report it to whoever calls next. What has broken
  // the device for the rest of the process is reported again by every later call.
  cudaGetLastError();
  const char* hint = error == cudaErrorInitializationError
                         ? "; a process that was forked after CUDA was in use cannot use it: start "
                           "processes with multiprocessing's \"spawn\""
                         : "";
  throw DeviceError(std::string("cuda: ") + what + ": " + cudaGetErrorString(error) + hint);
}

int device_count() {
  int driver = 0;
  check(cudaDriverGetVersion(&driver), "asking for the driver");
  if (driver == 0) throw DeviceError("cuda: no NVIDIA driver is installed");
  int built = 0;
  check(cudaRuntimeGetVersion(&built), "asking for the runtime");
  // A driver runs what was built with any release of its major version, by the minor versions'
  // compatibility.
  if (driver / 1000 < built / 1000) {
    throw DeviceError("cuda: the driver is too old: expected one for CUDA " +
                      std::to_string(built / 1000) + ".0 or later, found CUDA " + version(driver));
  }
  int count = 0;
  const cudaError_t error = cudaGetDeviceCount(&count);
  if (error == cudaErrorNoDevice || (error == cudaSuccess && count == 0)) {
    cudaGetLastError();
    throw DeviceError("cuda: the driver finds no device");
  }
  check(error, "counting devices");
  return count;
}

DeviceInfo device_info(int device) {
  use_device(device);
  cudaDeviceProp properties = {};
  check(cudaGetDeviceProperties(&properties, device), "asking for a device's properties");
  return {properties.name, properties.major, properties.minor, properties.multiProcessorCount,
          static_cast<int64_t>(properties.totalGlobalMem)};
}

void use_device(int device) {
  check(cudaGetLastError(), "an earlier call on this thread, by whatever library, failed");
  const int count = device_count();
  if (device < 0 || device >= count) {
    throw std::invalid_argument("device: expected cuda:0..cuda:" + std::to_string(count - 1) +
                                ", found cuda:" + std::to_string(device));
  }
  check(cudaSetDevice(device), "choosing the device");
}

namespace {

bool is_memory_of(uintptr_t address, int device) {
  cudaPointerAttributes attributes = {};
  const cudaError_t error =
      cudaPointerGetAttributes(&attributes, reinterpret_cast<const void*>(address));
  if (error == cudaErrorInvalidValue) {
    cudaGetLastError();
    return false;
  }
  check(error, "asking for a pointer");
  return attributes.device == device &&
         (attributes.type == cudaMemoryTypeDevice || attributes.type == cudaMemoryTypeManaged);
}

}  // namespace

void require_memory(const char* name, uintptr_t address, int64_t bytes, size_t alignment,
                    int device) {
  if (address == 0 || address % alignment != 0) {
    throw std::invalid_argument(std::string(name) + ": expected an address aligned to " +
                                std::to_string(alignment) + " bytes, found " +
                                std::to_string(address));
  }
  const uintptr_t last = address + static_cast<uintptr_t>(bytes) - 1;
  if (!is_memory_of(address, device) || !is_memory_of(last, device)) {
    throw std::invalid_argument(std::string(name) + ": expected " + std::to_string(bytes) +
                                " bytes of memory of cuda:" + std::to_string(device));
  }
}

bool DeviceMemory::reserve(size_t bytes) {
  if (bytes <= size_) return false;
  release();  // first, so that both are never held
  void* p = nullptr;
  const cudaError_t error = cudaMalloc(&p, bytes);
  if (error == cudaErrorMemoryAllocation) {
    cudaGetLastError();
    size_t free = 0;
    size_t total = 0;
    if (cudaMemGetInfo(&free, &total) != cudaSuccess) cudaGetLastError();
    throw OutOfMemory("cuda: out of memory: asked for " + std::to_string(bytes) + " bytes, " +
                      std::to_string(free) + " of " + std::to_string(total) +
                      " are free; use fewer or shorter recordings at once");
  }
  check(error, "allocating memory");
  data_ = static_cast<uint8_t*>(p);
  size_ = bytes;
  return true;
}

// An error here cannot be thrown; one that persists is reported by the next call.
void DeviceMemory::release() noexcept {
  if (data_ != nullptr && cudaFree(data_) != cudaSuccess) cudaGetLastError();
  data_ = nullptr;
  size_ = 0;
}

void PinnedMemory::reserve(size_t bytes) {
  if (bytes <= size_) return;
  release();
  void* p = nullptr;
  check(cudaMallocHost(&p, bytes), "allocating page-locked memory");
  data_ = static_cast<uint8_t*>(p);
  size_ = bytes;
}

void PinnedMemory::release() noexcept {
  if (data_ != nullptr && cudaFreeHost(data_) != cudaSuccess) cudaGetLastError();
  data_ = nullptr;
  size_ = 0;
}

Queue::Queue(int device) : device_(device) {
  use_device(device);
  check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "creating a stream");
}

Queue::~Queue() {
  if (event_ != nullptr && cudaEventDestroy(event_) != cudaSuccess) cudaGetLastError();
  if (cudaStreamDestroy(stream_) != cudaSuccess) cudaGetLastError();
}

void Queue::begin() {
  use_device(device_);
  finish();
}

void Queue::upload(void* to, const void* from, size_t bytes) {
  if (bytes == 0) return;
  check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, stream_), "copying to the device");
}

void Queue::download(void* to, const void* from, size_t bytes) {
  if (bytes == 0) return;
  check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, stream_),
        "copying from the device");
}

void Queue::finish() { check(cudaStreamSynchronize(stream_), "computing"); }

void Queue::follow(cudaStream_t other) { order(other, stream_); }

void Queue::lead(cudaStream_t other) { order(stream_, other); }

// One event serves both: a wait is for what the event stood for when the wait was queued.
void Queue::order(cudaStream_t first, cudaStream_t second) {
  if (event_ == nullptr)
    check(cudaEventCreateWithFlags(&event_, cudaEventDisableTiming), "creating an event");
  check(cudaEventRecord(event_, first), "recording an event");
  check(cudaStreamWaitEvent(second, event_, 0), "waiting for an event");
}

void Queue::drain() noexcept {
  if (cudaStreamSynchronize(stream_) != cudaSuccess) cudaGetLastError();
}

}  // namespace encodec_fast::cuda
