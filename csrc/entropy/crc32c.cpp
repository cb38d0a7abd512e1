#include "entropy/crc32c.h"

namespace encodec_fast {
namespace {

constexpr uint32_t kPolynomial = 0x82f63b78;  // bits reflected
constexpr int kSlices = 8;

// row[k][b]: what byte b adds to the remainder when k more bytes follow it.
struct Tables {
  uint32_t row[kSlices][256];
};

constexpr Tables make_tables() {
  Tables tables{};
  for (uint32_t b = 0; b < 256; ++b) {
    uint32_t remainder = b;
    for (int i = 0; i < 8; ++i)
      remainder = remainder >> 1 ^ ((remainder & 1) != 0 ? kPolynomial : 0);
    tables.row[0][b] = remainder;
  }
  for (int k = 1; k < kSlices; ++k) {
    for (uint32_t b = 0; b < 256; ++b) {
      const uint32_t before = tables.row[k - 1][b];
      tables.row[k][b] = before >> 8 ^ tables.row[0][before & 255];
    }
  }
  return tables;
}

constexpr Tables kTables = make_tables();

}  // namespace

uint32_t crc32c(const uint8_t* data, size_t size, uint32_t value) {
  uint32_t remainder = ~value;
  for (; size >= kSlices; data += kSlices, size -= kSlices) {
    uint32_t next = 0;
    for (int i = 0; i < kSlices; ++i) {
      const uint32_t byte = i < 4 ? data[i] ^ (remainder >> (8 * i) & 255) : data[i];
      next ^= kTables.row[kSlices - 1 - i][byte];
    }
    remainder = next;
  }
  for (; size > 0; ++data, --size)
    remainder = remainder >> 8 ^ kTables.row[0][(remainder ^ *data) & 255];
  return ~remainder;
}

}  // namespace encodec_fast
