// The range coder of version 1: carries go into the bytes already written, 32 bits leave at a time.
// Integers only, so that bytes are the same everywhere (docs/entropy.md).
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

#include "kernels/cdf.h"
#include "kernels/qualifier.h"

namespace encodec_fast {

// To and from the order of bytes in the stream.
EF_BOTH inline uint32_t big_endian(uint32_t word) {
#ifdef __CUDA_ARCH__
  return __byte_perm(word, 0, 0x0123);
#else
  return __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__ ? __builtin_bswap32(word) : word;
#endif
}

// What an encoder writes into memory that somebody else owns.
struct RangeWriter {
  // Bytes that a symbol writes at most, and those that flush() does.
  static constexpr size_t kMostOfSymbol = 4, kMostOfEnd = 8;

  uint8_t* bytes = nullptr;
  uint64_t used = 0;
  uint64_t low = 0;
  uint64_t range = UINT64_MAX;

  // interval: within 0..kCdfTotal, of a width of at least 1.
  EF_BOTH void encode(Interval interval) {
    const uint64_t unit = range >> kCdfBits;
    const uint64_t offset = unit * interval.start;
    low += offset;
    if (low < offset) carry();
    range = unit * interval.width;
    // Without a branch, which would be mispredicted every few symbols: four bytes are written in
    // any case and kept when they are settled.
    const uint32_t top = big_endian(static_cast<uint32_t>(low >> 32));
    memcpy(bytes + used, &top, sizeof top);
    const unsigned settled = range >> 32 == 0 ? 1 : 0;
    used += 4 * settled;
    low <<= 32 * settled;
    range <<= 32 * settled;
  }

  // Writes what is left, with as few bytes as decoding needs.
  EF_BOTH void flush() {
    // The number in low..low + range that ends in the most zero bytes, modulo 2^64. Bytes before it
    // stay even where they are zero, so that a decoder never reads more than kMaxPadding of them.
    uint64_t value = low;
    unsigned kept = 8;
    for (; kept > 0; --kept) {
      const unsigned zeros = 8 * (9 - kept);
      const uint64_t mask = zeros == 64 ? UINT64_MAX : (uint64_t{1} << zeros) - 1;
      const uint64_t rounded = (low + mask) & ~mask;
      if (rounded - low >= range) break;
      value = rounded;
    }
    if (value < low) carry();
    for (unsigned i = 0; i < kept; ++i) bytes[used++] = static_cast<uint8_t>(value >> (56 - 8 * i));
  }

 private:
  // Ends at a byte that is not 255: all that was encoded is a number below 1.
  EF_BOTH void carry() {
    uint64_t i = used;
    do {
      --i;
    } while (++bytes[i] == 0);
  }
};

class RangeEncoder {
 public:
  RangeEncoder() = default;
  RangeEncoder(const RangeEncoder&) = delete;
  RangeEncoder& operator=(const RangeEncoder&) = delete;

  // interval: within 0..kCdfTotal, of a width of at least 1.
  void encode(Interval interval) {
    if (writer_.used + RangeWriter::kMostOfSymbol > room_) grow();
    writer_.encode(interval);
  }

  // Appends what was encoded to out, with as few bytes as decoding needs, and starts anew.
  void flush(std::vector<uint8_t>& out);

 private:
  void grow();

  std::vector<uint8_t> bytes_;
  size_t room_ = 0;  // their number
  RangeWriter writer_;
};

class RangeDecoder {
 public:
  // data must outlive the decoder.
  RangeDecoder(const uint8_t* data, size_t size) : data_(data), size_(size) {
    code_ = next();
    code_ = code_ << 32 | next();
  }

  // What has been read stays; the rest is read there, which must hold the same bytes.
  void move_to(const uint8_t* data) { data_ = data; }

  // Where in 0..kCdfTotal the next symbol lies; kCdfTotal or more: the data is damaged.
  EF_BOTH uint32_t target() const { return static_cast<uint32_t>(code_ / (range_ >> kCdfBits)); }

  // interval: the one that holds target().
  EF_BOTH void consume(Interval interval) {
    const uint64_t unit = range_ >> kCdfBits;
    code_ -= unit * interval.start;
    range_ = unit * interval.width;
    if (range_ >> 32 != 0) return;
    code_ = code_ << 32 | next();
    range_ <<= 32;
  }

  // Whether more was read than an encoder leaves out: the data is truncated or damaged.
  EF_BOTH bool overrun() const { return read_ > size_ + kMaxPadding; }

  // Whether an encoder makes as many bytes of the symbols so far. To be asked after the last one:
  // other data is damaged.
  EF_BOTH bool complete() const { return read_ >= size_ && !overrun(); }

 private:
  static constexpr size_t kMaxPadding = 8;

  // The next four bytes, first one on top; zeros behind the end.
  EF_BOTH uint32_t next() {
    uint32_t word = 0;
    if (read_ + sizeof word <= size_) {
      memcpy(&word, data_ + read_, sizeof word);
    } else if (read_ < size_) {
      memcpy(&word, data_ + read_, size_ - read_);
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
