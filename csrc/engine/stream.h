// A batch of independent streams through one graph: cuts the graph into stages and the blocks into
// pieces, so that what passes between the operations stays in cache.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "engine/stage.h"

namespace encodec_fast {

class Stream {
 public:
  // graph must outlive the stream. Throws std::invalid_argument on a bad lane count.
  Stream(const Graph& graph, int64_t lanes, Start start);

  int64_t lanes() const { return static_cast<int64_t>(started_.size()); }

  // Where the rows of the next block go: [sum of rows][in_channels], lanes one after the other.
  // Checks the blocks; throws std::invalid_argument and changes nothing if one cannot be run, or is
  // of a lane whose last run() threw and which was not reset since.
  float* input(const std::vector<Block>& blocks);

  // Runs the blocks given to input(). Returns the output rows [sum of output_rows()][out_channels],
  // valid until the next call.
  const float* run();

  // Output rows per lane of the last run().
  const std::vector<int64_t>& output_rows() const { return rows_; }

  void reset();
  void reset(int64_t lane);

  // What lies between the operations while they run one piece of `rows` input rows, in bytes.
  double piece_bytes(int64_t rows) const;

  void profile(bool on);
  std::vector<Timing> timings() const;  // per op since profile(true); empty: not measured

 private:
  void run_stage(size_t index);
  int64_t piece_rows(const Stage& stage) const;

  const Graph& graph_;
  Start start_;
  std::vector<Stage> stages_;
  std::vector<bool> started_, failed_;
  std::vector<Block> blocks_;
  std::vector<int64_t> rows_;   // per lane, of the value that values_ holds
  std::vector<Buffer> values_;  // the input of each stage, and the output of the last
  std::vector<Work> work_;
};

}  // namespace encodec_fast
