// The range coder of version 1: carries go into the bytes already written, 32 bits leave at a time.
// Integers only, so that bytes are the same everywhere (docs/entropy.md).
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

#include "kernels/cdf.h"

namespace encodec_fast {

// To and from the order of bytes in the stream.
inline uint32_t big_endian(uint32_t word) {
  return __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__ ? __builtin_bswap32(word) : word;
}

class RangeEncoder {
 public:
  // interval: within 0..kCdfTotal, of a width of at least 1.
  void encode(Interval interval) {
    if (used_ + 4 > bytes_.size()) grow();
    const uint64_t unit = range_ >> kCdfBits;
    const uint64_t offset = unit * interval.start;
    low_ += offset;
    if (low_ < offset) carry();
    range_ = unit * interval.width;
    // Without a branch, which would be mispredicted every few symbols: four bytes are written in
    // any case and kept when they are settled.
    const uint32_t top = big_endian(static_cast<uint32_t>(low_ >> 32));
    std::memcpy(bytes_.data() + used_, &top, sizeof top);
    const unsigned settled = range_ >> 32 == 0 ? 1 : 0;
    used_ += 4 * settled;
    low_ <<= 32 * settled;
    range_ <<= 32 * settled;
  }

  // Appends what was encoded to out, with as few bytes as decoding needs, and starts anew.
  void flush(std::vector<uint8_t>& out);

 private:
  void grow();
  void carry();

  std::vector<uint8_t> bytes_;
  size_t used_ = 0;
  uint64_t low_ = 0;
  uint64_t range_ = UINT64_MAX;
};

class RangeDecoder {
 public:
  // data must outlive the decoder.
  RangeDecoder(const uint8_t* data, size_t size);

  // Where in 0..kCdfTotal the next symbol lies; kCdfTotal or more: the data is damaged.
  uint32_t target() const { return static_cast<uint32_t>(code_ / (range_ >> kCdfBits)); }

  // interval: the one that holds target().
  void consume(Interval interval) {
    const uint64_t unit = range_ >> kCdfBits;
    code_ -= unit * interval.start;
    range_ = unit * interval.width;
    if (range_ >> 32 != 0) return;
    code_ = code_ << 32 | next();
    range_ <<= 32;
  }

  // Whether more was read than an encoder leaves out: the data is truncated or damaged.
  bool overrun() const { return read_ > size_ + kMaxPadding; }

  // Whether an encoder makes as many bytes of the symbols so far. To be asked after the last one:
  // other data is damaged.
  bool complete() const { return read_ >= size_ && !overrun(); }

 private:
  static constexpr size_t kMaxPadding = 8;

  // The next four bytes, first one on top; zeros behind the end.
  uint32_t next() {
    uint32_t word = 0;
    if (read_ + sizeof word <= size_) {
      std::memcpy(&word, data_ + read_, sizeof word);
    } else if (read_ < size_) {
      std::memcpy(&word, data_ + read_, size_ - read_);
    }
    read_ += sizeof word;
    return big_endian(word);
  }

  const uint8_t* data_;
  size_t size_;
  size_t read_ = 0;
  uint64_t code_ = 0;
  uint64_t range_ = UINT64_MAX;
};

}  // namespace encodec_fast
