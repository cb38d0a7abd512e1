// CRC-32C (Castagnoli): the checksum of a version 1 chunk.
#pragma once

#include <cstddef>
#include <cstdint>

namespace encodec_fast {

// The checksum of some bytes behind those whose checksum is `value`: crc32c(b, crc32c(a)) is that
// of a and b joined. That of "123456789" is e3069283.
uint32_t crc32c(const uint8_t* data, size_t size, uint32_t value = 0);

}  // namespace encodec_fast
