#include "entropy/range_coder.h"

#include <algorithm>

namespace encodec_fast {

void RangeEncoder::grow() {
  room_ = std::max<size_t>(2 * room_, 256);
  bytes_.resize(room_);
  writer_.bytes = bytes_.data();
}

void RangeEncoder::flush(std::vector<uint8_t>& out) {
  room_ = writer_.used + RangeWriter::kMostOfEnd;
  bytes_.resize(room_);
  writer_.bytes = bytes_.data();
  writer_.flush();
  out.insert(out.end(), bytes_.begin(), bytes_.begin() + static_cast<std::ptrdiff_t>(writer_.used));
  writer_ = {bytes_.data(), 0, 0, UINT64_MAX};
}

}  // namespace encodec_fast
