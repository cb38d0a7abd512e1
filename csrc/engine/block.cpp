#include "engine/block.h"

#include <stdexcept>
#include <string>

namespace encodec_fast {

void check_lanes(const Graph& graph, int64_t lanes, Start start) {
  if (lanes < 1 || lanes > kMaxLanes) {
    throw std::invalid_argument("batch: expected 1.." + std::to_string(kMaxLanes) + ", found " +
                                std::to_string(lanes));
  }
  if (!graph.causal() && start != Start::kExact) {
    throw std::invalid_argument("start: a model that is not causal has no low-latency start");
  }
}

void check_block(const Graph& graph, Start start, const Block& b, bool started, bool failed) {
  if (failed && (b.rows != 0 || b.last))
    throw std::invalid_argument("block: an earlier call failed; reset the stream");
  if (b.rows == 0) return;
  if (b.rows < 0) throw std::invalid_argument("block: negative length");
  if (!graph.streams() && (started || !b.last))
    throw std::invalid_argument("block: this model needs its whole segment at once");
  if (!b.last && b.rows % graph.down() != 0) {
    throw std::invalid_argument("block: expected a multiple of " + std::to_string(graph.down()) +
                                " rows, found " + std::to_string(b.rows));
  }
  if (start == Start::kExact && !started && !b.last && b.rows < graph.start_rows()) {
    throw std::invalid_argument("block: the first one needs " + std::to_string(graph.start_rows()) +
                                " rows, found " + std::to_string(b.rows));
  }
}

}  // namespace encodec_fast
