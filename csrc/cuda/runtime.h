// What the host side asks of the CUDA runtime: errors as exceptions, memory, streams.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>

namespace encodec_fast::cuda {

// The device or its driver failed; bad arguments are std::invalid_argument.
class DeviceError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// Other memory may be given back, by whatever library, and the call made again.
class OutOfMemory : public DeviceError {
 public:
  using DeviceError::DeviceError;
};

// Throws DeviceError for anything but success. `what` says what was being done.
void check(cudaError_t error, const char* what);

// Number of devices. Throws DeviceError where there is no driver, where it is older than the CUDA
// that this was built with, and where there is no device: each with its own message.
int device_count();

struct DeviceInfo {
  std::string name;
  int major, minor;  // compute capability
  int multiprocessors;
  int64_t memory;  // bytes
};
DeviceInfo device_info(int device);

// Makes `device` current for the calling thread. Throws DeviceError for one that there is not, and
// for an error that an earlier call of anybody left behind on this thread.
void use_device(int device);

// Throws std::invalid_argument, naming the argument, unless `bytes` from `address` on, which is a
// multiple of `alignment`, begin and end in memory of `device`.
void require_memory(const char* name, uintptr_t address, int64_t bytes, size_t alignment,
                    int device);

// Memory on the current device. Growing keeps nothing.
class DeviceMemory {
 public:
  DeviceMemory() = default;
  ~DeviceMemory() { release(); }
  DeviceMemory(DeviceMemory&& other) noexcept { swap(other); }
  DeviceMemory& operator=(DeviceMemory&& other) noexcept {
    swap(other);
    return *this;
  }

  // Whether it had to move.
  bool reserve(size_t bytes);
  uint8_t* bytes() const { return data_; }
  float* floats() const { return reinterpret_cast<float*>(data_); }
  size_t size() const { return size_; }

 private:
  void swap(DeviceMemory& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
  }
  void release() noexcept;

  uint8_t* data_ = nullptr;
  size_t size_ = 0;
};

// Memory of the host that the device copies from and to while the host goes on.
class PinnedMemory {
 public:
  PinnedMemory() = default;
  ~PinnedMemory() { release(); }
  PinnedMemory(const PinnedMemory&) = delete;
  PinnedMemory& operator=(const PinnedMemory&) = delete;

  void reserve(size_t bytes);
  uint8_t* bytes() const { return data_; }
  float* floats() const { return reinterpret_cast<float*>(data_); }

 private:
  void release() noexcept;

  uint8_t* data_ = nullptr;
  size_t size_ = 0;
};

class Queue {
 public:
  explicit Queue(int device);  // makes the device current
  ~Queue();
  Queue(const Queue&) = delete;
  Queue& operator=(const Queue&) = delete;

  int device() const { return device_; }
  cudaStream_t stream() const { return stream_; }
  // Makes the device current, and waits for what a call that threw may have left in the queue: it
  // reads memory of the host that the next call writes.
  void begin();
  void upload(void* to, const void* from, size_t bytes);
  void download(void* to, const void* from, size_t bytes);
  // Waits; throws DeviceError if anything in the queue failed.
  void finish();

  // What is queued from now on begins when `other`, a stream of the same device, has done what it
  // was given so far; the host waits for nothing.
  void follow(cudaStream_t other);
  // The reverse: what `other` is given from now on waits for what is queued here.
  void lead(cudaStream_t other);
  // Waits, whatever comes of it.
  void drain() noexcept;

 private:
  void order(cudaStream_t first, cudaStream_t second);

  int device_;
  cudaStream_t stream_ = nullptr;
  cudaEvent_t event_ = nullptr;
};

}  // namespace encodec_fast::cuda
