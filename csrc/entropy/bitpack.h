// Fixed-width little-endian bit packing of codes: the payload of .ecdc files without entropy coding
// (encodec_fast/ecdc.py).
#pragma once

#include <cstdint>
#include <vector>

namespace encodec_fast {

// Values of `bits` bits, the first bit of a value in the lowest free bit of a byte.
class BitPacker {
 public:
  explicit BitPacker(int bits);  // 1..16, else std::invalid_argument

  // Appends the bytes that are complete to out. Throws std::invalid_argument for a value that does
  // not fit and then leaves the packer and out as they were.
  void push(const uint16_t* values, int64_t count, std::vector<uint8_t>& out);

  // Appends the last, partly filled byte, if there is one, and starts anew on a byte boundary.
  void flush(std::vector<uint8_t>& out);

 private:
  int bits_;
  int filled_ = 0;
  uint32_t accumulator_ = 0;
};

class BitUnpacker {
 public:
  explicit BitUnpacker(int bits);

  // Appends all values completed by these bytes to out.
  void push(const uint8_t* bytes, int64_t count, std::vector<uint16_t>& out);

 private:
  int bits_;
  int filled_ = 0;
  uint32_t accumulator_ = 0;
};

}  // namespace encodec_fast
