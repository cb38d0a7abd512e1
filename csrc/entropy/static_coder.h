// Codes by one fixed distribution per codebook: entropy mode "static" of version 1.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "entropy/cdf_table.h"

namespace encodec_fast {

class StaticCoder {
 public:
  // widths: [books][entries], each at least 1, those of a codebook summing to at most kCdfTotal,
  // else std::invalid_argument.
  StaticCoder(const uint32_t* widths, int64_t books, int64_t entries);

  int64_t books() const { return static_cast<int64_t>(tables_.size()); }

  // codes: [n_q][frames], n_q <= books(). The payload: frame by frame, codebook by codebook within.
  // Throws std::invalid_argument for a code that is no entry.
  std::vector<uint8_t> encode(const uint16_t* codes, int64_t n_q, int64_t frames) const;

  // The inverse, [frames][n_q]. Throws std::invalid_argument for data that encode does not make of
  // that many codes; memory grows with what the data holds, whatever `frames` says.
  std::vector<uint16_t> decode(const uint8_t* data, size_t size, int64_t n_q, int64_t frames) const;

 private:
  std::vector<CdfTable> tables_;
};

}  // namespace encodec_fast
