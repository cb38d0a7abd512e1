// Fixed-width little-endian bit packing of codes: the payload of .ecdc files without entropy coding
// (encodec_fast/ecdc.py).
#pragma once

#include <cstdint>

namespace encodec_fast {

// Values of `bits` bits, the first bit of a value in the lowest free bit of a byte.
class BitPacker {
 public:
  explicit BitPacker(int bits);  // 1..16, else std::invalid_argument

  // The bytes that are complete after `count` more values.
  int64_t packed_size(int64_t count) const { return (filled_ + count * bits_) / 8; }

  // Writes those bytes. Throws std::invalid_argument for a value that does not fit and then leaves
  // the packer as it was.
  void push(const uint16_t* values, int64_t count, uint8_t* out);

  // Starts anew on a byte boundary. Writes the last, partly filled byte and returns true, if there
  // is one.
  bool flush(uint8_t* out);

 private:
  int bits_;
  int filled_ = 0;
  uint32_t accumulator_ = 0;
};

class BitUnpacker {
 public:
  explicit BitUnpacker(int bits);

  // The values that are complete after `count` more bytes.
  int64_t unpacked_size(int64_t count) const { return (filled_ + count * 8) / bits_; }

  // Writes those values.
  void push(const uint8_t* bytes, int64_t count, uint16_t* out);

 private:
  int bits_;
  int filled_ = 0;
  uint32_t accumulator_ = 0;
};

}  // namespace encodec_fast
