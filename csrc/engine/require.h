// Checks of what builds a model or calls it.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>

namespace encodec_fast {

inline void require(bool condition, const std::string& message) {
  if (!condition) throw std::invalid_argument(message);
}

// Without a string to make where all is well.
inline void require(bool condition, const char* message) {
  if (!condition) throw std::invalid_argument(message);
}

inline void require_in(const char* name, int64_t value, int64_t low, int64_t high) {
  require(value >= low && value <= high, std::string(name) + ": expected " + std::to_string(low) +
                                             ".." + std::to_string(high) + ", found " +
                                             std::to_string(value));
}

}  // namespace encodec_fast
