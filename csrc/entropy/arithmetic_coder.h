// The reference's arithmetic coder, byte for byte: version 0 files with a language model. It works
// with float64 products that are exact, so integers give the same (docs/entropy.md).
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace encodec_fast {

// cdf: the n inclusive sums of the widths of a distribution; symbol s owns cdf[s - 1]..cdf[s] - 1.
// The reference's may end beyond 2^24 (kernels/cdf.h); its last symbol cannot be encoded then.

class ArithmeticEncoder {
 public:
  // Throws std::invalid_argument, and leaves the state as it was, for a symbol whose interval is
  // empty or reaches beyond 2^24, and std::overflow_error where an interval straddles a boundary
  // for so long that the reference gives up, too.
  void encode(const int64_t* cdf, int64_t symbol);

  // A point of the stream to go back to, and the way there.
  struct Mark {
    uint64_t low, high;
    int max_bit, filled;
    size_t size;
    uint8_t last;
  };
  Mark mark() const;
  void rewind(const Mark& mark);

  // Appends all bytes of the stream, the last one filled up with zero bits, and starts anew.
  void flush(std::vector<uint8_t>& out);

 private:
  void put(uint64_t bit);

  uint64_t low_ = 0;
  uint64_t high_ = 0;
  int max_bit_ = -1;  // low and high have max_bit_ + 1 bits
  int filled_ = 0;    // bits of the last byte
  std::vector<uint8_t> bytes_;
};

class ArithmeticDecoder {
 public:
  // data must outlive the decoder.
  ArithmeticDecoder(const uint8_t* data, size_t size) : data_(data), size_(size) {}

  // The next symbol of 0..n - 1; kEnd where the data ends before it, kDamaged where no symbol fits.
  // cdf: rising, from above 0 to below 2^26. After kEnd or kDamaged the decoder is of no use.
  static constexpr int64_t kEnd = -1;
  static constexpr int64_t kDamaged = -2;
  int64_t decode(const int64_t* cdf, int64_t n);

  // Bytes of data that were read so far, the last one perhaps in part.
  size_t position() const { return (bit_ + 7) / 8; }

 private:
  const uint8_t* data_;
  size_t size_;
  size_t bit_ = 0;
  uint64_t low_ = 0;
  uint64_t high_ = 0;
  uint64_t current_ = 0;
  int max_bit_ = -1;
};

}  // namespace encodec_fast
