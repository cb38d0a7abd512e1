// Which rows of every value a block brings, which lie around them and which are kept for the next
// one: all that an executor must know of positions, in numbers alone.
#pragma once

#include <cstdint>
#include <vector>

#include "engine/block.h"
#include "engine/layout.h"

namespace encodec_fast {

// What a stream remembers of its rows.
struct LaneRows {
  bool started = false;
  // Per value: its rows so far, less whole frames that make no difference any more; none before the
  // first block.
  std::vector<int64_t> ends;
  std::vector<int64_t> kept;  // per form: rows that are kept in front of the next ones

  bool operator==(const LaneRows& other) const {
    return started == other.started && ends == other.ends && kept == other.kept;
  }
};

// One block of one stream. Rows are counted from the block's first row of their value.
struct BlockRows {
  bool fresh = true, last = false;  // the stream begins, ends with it
  std::vector<int64_t> rows;        // per value
  std::vector<int64_t> input;       // per op: the row that it reads first
  std::vector<int64_t> add;         // per op: the first row that it adds
  std::vector<int64_t> front;       // per form: rows of history or padding in front
  std::vector<int64_t> behind;      // per form: rows of padding behind
  std::vector<int64_t> keep;        // per form: the first row that is kept; none is from `rows` on

  bool operator==(const BlockRows& other) const;
};

// A row of padding: where it stands, and the row that it repeats, or zeros.
struct PadRow {
  int64_t row, source;
  bool zeros;
};

// For a whole graph, of which `layout` must be.
class Geometry {
 public:
  Geometry(const Graph& graph, const Layout& layout, Start start)
      : graph_(graph), layout_(layout), start_(start) {}

  // The next block of a lane, which advances by it.
  BlockRows advance(LaneRows& lane, const Block& block) const;

  // Rows around those that the convolution `op` reads, in front and behind.
  std::vector<PadRow> padding(int op, const BlockRows& block) const;

  // Rows of the product of an op, of which some are trimmed where finishes() says so.
  int64_t product_rows(int op, const BlockRows& block) const;
  // Whether a product is not final: a norm follows, or rows are trimmed.
  bool finishes(int op, const BlockRows& block) const;

 private:
  void forget_frames(std::vector<int64_t>& ends) const;
  const Op& op(int index) const { return graph_.ops()[static_cast<size_t>(index)]; }

  const Graph& graph_;
  const Layout& layout_;
  Start start_;
};

}  // namespace encodec_fast
