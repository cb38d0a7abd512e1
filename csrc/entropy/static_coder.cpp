#include "entropy/static_coder.h"

#include <algorithm>
#include <stdexcept>
#include <string>

#include "entropy/range_coder.h"

namespace encodec_fast {

StaticCoder::StaticCoder(const uint32_t* widths, int64_t books, int64_t entries) {
  std::vector<uint32_t> starts(static_cast<size_t>(entries) + 1);
  for (int64_t k = 0; k < books; ++k) {
    uint64_t sum = 0;
    for (int64_t i = 0; i < entries; ++i) {
      sum = std::min<uint64_t>(sum + widths[k * entries + i], UINT32_MAX);
      starts[static_cast<size_t>(i) + 1] = static_cast<uint32_t>(sum);
    }
    try {
      tables_.emplace_back(starts.data(), entries);
    } catch (const std::invalid_argument&) {
      throw std::invalid_argument(
          "widths: expected 2..65536 widths of at least 1 per codebook, together at most 2^24; not "
          "so in codebook " +
          std::to_string(k));
    }
  }
}

std::vector<uint8_t> StaticCoder::encode(const uint16_t* codes, int64_t n_q, int64_t frames) const {
  RangeEncoder encoder;
  for (int64_t t = 0; t < frames; ++t) {
    for (int64_t k = 0; k < n_q; ++k) {
      const CdfTable& table = tables_[static_cast<size_t>(k)];
      const uint16_t code = codes[k * frames + t];
      if (code >= table.size()) {
        throw std::invalid_argument("codes: expected codes in 0.." +
                                    std::to_string(table.size() - 1) + ", found " +
                                    std::to_string(code));
      }
      encoder.encode(table.interval(code));
    }
  }
  std::vector<uint8_t> out;
  encoder.flush(out);
  return out;
}

std::vector<uint16_t> StaticCoder::decode(const uint8_t* data, size_t size, int64_t n_q,
                                          int64_t frames) const {
  RangeDecoder decoder(data, size);
  std::vector<uint16_t> codes;
  for (int64_t t = 0; t < frames; ++t) {
    for (int64_t k = 0; k < n_q; ++k) {
      const CdfTable& table = tables_[static_cast<size_t>(k)];
      const int64_t code = table.find(decoder.target());
      if (code < 0 || decoder.overrun())
        throw std::invalid_argument("data: damaged (frame " + std::to_string(t) + ")");
      decoder.consume(table.interval(code));
      codes.push_back(static_cast<uint16_t>(code));
    }
  }
  if (!decoder.complete()) throw std::invalid_argument("data: damaged (not as long as its codes)");
  return codes;
}

}  // namespace encodec_fast
