// Memory for weights and activations: read from start to end at every step, so it asks for huge
// pages, which spare the address translation a miss on every page, and the system a fault on each.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace encodec_fast {

struct Free {
  void operator()(void* p) const noexcept { std::free(p); }
};
using Memory = std::unique_ptr<uint8_t[], Free>;

inline constexpr size_t kCacheLine = 64;

inline size_t whole_lines(size_t bytes) {
  return (bytes + kCacheLine - 1) / kCacheLine * kCacheLine;
}

// At least `bytes` bytes, not initialised. Throws std::bad_alloc.
inline Memory allocate(size_t bytes) {
  constexpr size_t kHugePage = size_t{1} << 21;
  const size_t unit = bytes >= kHugePage ? kHugePage : kCacheLine;
  const size_t size = (bytes / unit + 1) * unit;
  void* p = std::aligned_alloc(unit, size);
  if (p == nullptr) throw std::bad_alloc();
#if defined(__linux__) && defined(MADV_HUGEPAGE)
  if (unit == kHugePage) madvise(p, size, MADV_HUGEPAGE);  // a wish: refusal costs only speed
#endif
  return Memory(static_cast<uint8_t*>(p));
}

// Floats that are written before they are read: growing keeps none.
class Buffer {
 public:
  float* room(size_t count) {
    if (count > count_) {
      count_ = 0;
      memory_.reset();  // first, so that both are never held
      memory_ = allocate(count * sizeof(float));
      count_ = count;
    }
    return data();
  }
  float* data() const { return reinterpret_cast<float*>(memory_.get()); }

 private:
  Memory memory_;
  size_t count_ = 0;
};

}  // namespace encodec_fast
