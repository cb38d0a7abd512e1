// Prints what the functions give that the CPU's kernels and CUDA's share, compiled as for a device
// of one lane: test_shared_headers.py judges it.
#include <cmath>
#include <cstdio>
#include <vector>

#include "entropy/range_coder.h"
#include "kernels/cdf_width.h"
#include "kernels/position.h"

namespace {

using encodec_fast::Interval;
using encodec_fast::kCdfTotal;
using encodec_fast::RangeDecoder;
using encodec_fast::RangeWriter;

// "turn PHASE COSINE SINE", exactly.
void turns() {
  for (int i = 0; i < 4000; ++i) {
    const double phase = std::ldexp(1.0 + i * 0x1.9e3779b9p-13, i % 32);
    const encodec_fast::EF_ISA::Turn at = encodec_fast::EF_ISA::turn(phase);
    std::printf("turn %a %a %a\n", phase, at.cosine, at.sine);
  }
}

// "width SYMBOLS P WIDTH", exactly; then what is no probability.
void widths() {
  const float p[] = {0.0f,     -0.0f,           0x1p-149f,      0x1p-126f,      0x1.fffffep-25f,
                     0x1p-24f, 0x1.000002p-24f, 0x1.555556p-2f, 0x1.fffffep-2f, 0x1.fffffep-1f,
                     1.0f};
  for (const int64_t n : {2, 3, 1000, 1024, 65535, 65536}) {
    for (const float value : p) {
      std::printf("width %lld %a %u\n", static_cast<long long>(n), static_cast<double>(value),
                  encodec_fast::EF_ISA::cdf_width(value, encodec_fast::EF_ISA::cdf_factor(n)));
    }
  }
  int refused = 0;
  for (const float value : {-0x1p-149f, 0x1.000002p+0f, INFINITY, -INFINITY, NAN})
    refused += encodec_fast::EF_ISA::is_probability(value) ? 0 : 1;
  std::printf("refused %d\n", refused);
}

// Symbols that cost the most and such as carry through all bytes, written into just the room that
// is allowed them, and read back. "coder SYMBOLS USED WRONG", WRONG counting lost symbols and bytes
// written beyond the room.
void coder(uint64_t seed, int symbols) {
  constexpr uint8_t kGuard = 0x5a;
  const size_t room = symbols * RangeWriter::kMostOfSymbol + RangeWriter::kMostOfEnd;
  std::vector<uint8_t> bytes(room + 64, kGuard);
  std::vector<Interval> intervals;
  uint64_t state = seed;
  for (int i = 0; i < symbols; ++i) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    const uint32_t start = (state >> 60) < 10 ? kCdfTotal - 1 : (state >> 33) % kCdfTotal;
    intervals.push_back({start, 1});
  }
  RangeWriter writer;
  writer.bytes = bytes.data();
  for (const Interval& one : intervals) writer.encode(one);
  writer.flush();
  int wrong = 0;
  for (size_t i = room; i < bytes.size(); ++i) wrong += bytes[i] == kGuard ? 0 : 1;
  // Read from elsewhere, as on a device.
  const std::vector<uint8_t> copy(bytes.begin(), bytes.begin() + static_cast<long>(writer.used));
  RangeDecoder decoder(bytes.data(), writer.used);
  decoder.move_to(copy.data());
  for (const Interval& one : intervals) {
    wrong += decoder.target() == one.start ? 0 : 1;
    decoder.consume(one);
  }
  wrong += decoder.complete() ? 0 : 1;
  std::printf("coder %d %llu %d\n", symbols, static_cast<unsigned long long>(writer.used), wrong);
}

}  // namespace

int main() {
  turns();
  widths();
  for (int symbols = 0; symbols < 200; ++symbols) coder(symbols + 1, symbols);
}
