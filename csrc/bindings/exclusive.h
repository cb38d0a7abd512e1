#pragma once

#include <atomic>
#include <stdexcept>

namespace encodec_fast {

// The state of a stream belongs to one thread at a time; the interpreter lock is released while it
// runs.
class Exclusive {
 public:
  explicit Exclusive(std::atomic<bool>& busy) : busy_(busy) {
    if (busy_.exchange(true)) throw std::invalid_argument("stream: in use by another thread");
  }
  ~Exclusive() { busy_ = false; }
  Exclusive(const Exclusive&) = delete;
  Exclusive& operator=(const Exclusive&) = delete;

 private:
  std::atomic<bool>& busy_;
};

}  // namespace encodec_fast
