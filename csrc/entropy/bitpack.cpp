#include "entropy/bitpack.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <stdexcept>
#include <string>
#include <utility>

namespace encodec_fast {
namespace {

constexpr int kMaxBits = 16;
constexpr int64_t kBlock = 4096;  // values looked at, then packed, while they are in cache

int checked_bits(int bits) {
  if (bits < 1 || bits > kMaxBits)
    throw std::invalid_argument("bits: expected 1..16, found " + std::to_string(bits));
  return bits;
}

void check_values(const uint16_t* values, int64_t count, int bits) {
  unsigned all = 0;
  for (int64_t i = 0; i < count; ++i) all |= values[i];
  if (all >> bits == 0) return;
  const uint16_t* found =
      std::find_if(values, values + count, [bits](uint16_t value) { return value >> bits != 0; });
  throw std::invalid_argument("values: " + std::to_string(*found) + " does not fit into " +
                              std::to_string(bits) + " bits");
}

// What follows reads four values as one word: on other machines all is left to the plain loops.
constexpr bool kLittleEndian = __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__;

uint64_t load(const void* p) {
  uint64_t word;
  std::memcpy(&word, p, sizeof word);
  return word;
}
void store(void* p, uint64_t word) { std::memcpy(p, &word, sizeof word); }

// Eight values are kBits whole bytes. Both directions touch 16 bytes per group: kGuard groups at
// the end are left to the plain loops, too.
template <int kBits>
struct Groups {
  static constexpr int kHalf = 4 * kBits;
  static constexpr int64_t kGuard = (15 + kBits) / kBits;
  // Of four values in 16 bits each, the first and third; then of two pairs, the first.
  static constexpr uint64_t kEven = 0x0000ffff0000ffff;
  static constexpr uint64_t kFirst = 0x00000000ffffffff;

  static int64_t groups(int64_t whole) {
    return kLittleEndian ? std::max<int64_t>(whole - kGuard, 0) : 0;
  }

  // Four values in 16 bits each, to their bits next to each other, and back.
  static uint64_t join(uint64_t x) {
    x = (x & kEven) | (x & ~kEven) >> (16 - kBits);
    return (x & kFirst) | (x & ~kFirst) >> (32 - 2 * kBits);
  }
  static uint64_t split(uint64_t x) {
    constexpr uint64_t kPair = (uint64_t{1} << (2 * kBits)) - 1;
    constexpr uint64_t kOne = ((uint64_t{1} << kBits) - 1) * 0x100000001;
    x = (x & kPair) | (x & kPair << (2 * kBits)) << (32 - 2 * kBits);
    return (x & kOne) | (x & kOne << kBits) << (16 - kBits);
  }

  static int64_t pack(const uint16_t* values, int64_t count, uint8_t* out) {
    const int64_t n = groups(count / 8);
    for (int64_t g = 0; g < n; ++g, values += 8, out += kBits) {
      const uint64_t a = join(load(values));
      const uint64_t b = join(load(values + 4));
      if constexpr (kHalf < 64) {
        store(out, a | b << kHalf);
        if constexpr (kBits > 8) store(out + 8, b >> (64 - kHalf));
      } else {
        store(out, a);
        store(out + 8, b);
      }
    }
    return n * 8;
  }

  static int64_t unpack(const uint8_t* bytes, int64_t count, uint16_t* out) {
    const int64_t n = groups(count / kBits);
    for (int64_t g = 0; g < n; ++g, bytes += kBits, out += 8) {
      const uint64_t a = load(bytes);
      uint64_t b = 0;
      if constexpr (kBits <= 8) {
        b = a >> kHalf;
      } else if constexpr (kHalf < 64) {
        b = a >> kHalf | load(bytes + 8) << (64 - kHalf);
      } else {
        b = load(bytes + 8);
      }
      store(out, split(a));
      store(out + 4, split(b));
    }
    return n * 8;
  }
};

// By bits - 1. Each returns the values of the groups that it did.
template <int... kIndex>
constexpr auto packers(std::integer_sequence<int, kIndex...> /*bits*/) {
  return std::array{&Groups<kIndex + 1>::pack...};
}
template <int... kIndex>
constexpr auto unpackers(std::integer_sequence<int, kIndex...> /*bits*/) {
  return std::array{&Groups<kIndex + 1>::unpack...};
}
constexpr auto kPack = packers(std::make_integer_sequence<int, kMaxBits>());
constexpr auto kUnpack = unpackers(std::make_integer_sequence<int, kMaxBits>());

}  // namespace

BitPacker::BitPacker(int bits) : bits_(checked_bits(bits)) {}

void BitPacker::push(const uint16_t* values, int64_t count, uint8_t* out) {
  BitPacker next = *this;
  for (int64_t first = 0; first < count; first += kBlock) {
    const int64_t here = std::min(kBlock, count - first);
    check_values(values + first, here, bits_);
    int64_t done = 0;
    if (next.filled_ == 0) {
      done = kPack[static_cast<size_t>(bits_ - 1)](values + first, here, out);
      out += done / 8 * bits_;
    }
    for (int64_t i = first + done; i < first + here; ++i) {
      next.accumulator_ |= static_cast<uint32_t>(values[i]) << next.filled_;
      for (next.filled_ += bits_; next.filled_ >= 8; next.filled_ -= 8) {
        *out++ = static_cast<uint8_t>(next.accumulator_);
        next.accumulator_ >>= 8;
      }
    }
  }
  *this = next;
}

bool BitPacker::flush(uint8_t* out) {
  const bool rest = filled_ > 0;
  if (rest) *out = static_cast<uint8_t>(accumulator_);
  *this = BitPacker(bits_);
  return rest;
}

BitUnpacker::BitUnpacker(int bits) : bits_(checked_bits(bits)) {}

void BitUnpacker::push(const uint8_t* bytes, int64_t count, uint16_t* out) {
  const uint32_t mask = (1u << bits_) - 1;
  int64_t done = 0;
  if (filled_ == 0) {
    const int64_t values = kUnpack[static_cast<size_t>(bits_ - 1)](bytes, count, out);
    out += values;
    done = values / 8 * bits_;
  }
  for (int64_t i = done; i < count; ++i) {
    accumulator_ |= static_cast<uint32_t>(bytes[i]) << filled_;
    for (filled_ += 8; filled_ >= bits_; filled_ -= bits_) {
      *out++ = static_cast<uint16_t>(accumulator_ & mask);
      accumulator_ >>= bits_;
    }
  }
}

}  // namespace encodec_fast
