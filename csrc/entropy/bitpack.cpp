#include "entropy/bitpack.h"

#include <stdexcept>
#include <string>

namespace encodec_fast {
namespace {

int checked_bits(int bits) {
  if (bits < 1 || bits > 16)
    throw std::invalid_argument("bits: expected 1..16, found " + std::to_string(bits));
  return bits;
}

}  // namespace

BitPacker::BitPacker(int bits) : bits_(checked_bits(bits)) {}

void BitPacker::push(const uint16_t* values, int64_t count, std::vector<uint8_t>& out) {
  for (int64_t i = 0; i < count; ++i) {
    if (values[i] >> bits_ != 0) {
      throw std::invalid_argument("values: " + std::to_string(values[i]) + " does not fit into " +
                                  std::to_string(bits_) + " bits");
    }
  }
  out.reserve(out.size() + static_cast<size_t>((count * bits_ + filled_) / 8));
  for (int64_t i = 0; i < count; ++i) {
    accumulator_ |= static_cast<uint32_t>(values[i]) << filled_;
    for (filled_ += bits_; filled_ >= 8; filled_ -= 8) {
      out.push_back(static_cast<uint8_t>(accumulator_));
      accumulator_ >>= 8;
    }
  }
}

void BitPacker::flush(std::vector<uint8_t>& out) {
  if (filled_ > 0) out.push_back(static_cast<uint8_t>(accumulator_));
  accumulator_ = 0;
  filled_ = 0;
}

BitUnpacker::BitUnpacker(int bits) : bits_(checked_bits(bits)) {}

void BitUnpacker::push(const uint8_t* bytes, int64_t count, std::vector<uint16_t>& out) {
  const uint32_t mask = (1u << bits_) - 1;
  out.reserve(out.size() + static_cast<size_t>((count * 8 + filled_) / bits_));
  for (int64_t i = 0; i < count; ++i) {
    accumulator_ |= static_cast<uint32_t>(bytes[i]) << filled_;
    for (filled_ += 8; filled_ >= bits_; filled_ -= bits_) {
      out.push_back(static_cast<uint16_t>(accumulator_ & mask));
      accumulator_ >>= bits_;
    }
  }
}

}  // namespace encodec_fast
