// Blocks of streams: what may be pushed when.
#pragma once

#include <cstdint>

#include "engine/program.h"

namespace encodec_fast {

enum class Start {
  kExact,       // padding at the start as the model defines it (mirrored or zero)
  kLowLatency,  // zeros in front of the first row: the first block may be as short as any other
};

// One block of one stream.
struct Block {
  int64_t rows = 0;   // new input rows; 0: this stream rests or ends
  bool last = false;  // the stream ends with this block, be it empty, and starts anew with the next
};

// Most streams of a batch.
inline constexpr int64_t kMaxLanes = 1 << 16;

// Throws std::invalid_argument for a number of streams, or a start, that the graph cannot have.
void check_lanes(const Graph& graph, int64_t lanes, Start start);

// Throws std::invalid_argument for a block that a stream cannot run; `started` says whether it had
// one before, `failed` whether its last one threw.
void check_block(const Graph& graph, Start start, const Block& block, bool started, bool failed);

}  // namespace encodec_fast
