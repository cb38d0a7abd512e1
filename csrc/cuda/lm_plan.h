// Which steps of which streams are evaluated together, where all codes are known: in numbers alone.
#pragma once

#include <cstdint>
#include <vector>

#include "cuda/lm_kernels.h"

namespace encodec_fast::cuda {

// The steps of one stream in a call.
struct LmSteps {
  float* cache;
  uint16_t* codes;  // on the device, [steps + 1][n_q]
  int64_t before;   // steps of the stream before this call
  int64_t steps;
};

// Runs and spans of a block lie behind each other in those of the plan.
struct LmBlock {
  size_t run, runs;
  size_t span, spans;
  int64_t rows;
};

struct LmPlan {
  std::vector<LmRun> runs;
  std::vector<LmSpan> spans;
  std::vector<LmBlock> blocks;
};

// All steps of all streams, in blocks of at most `rows` and runs of at most `run_rows`.
LmPlan plan_blocks(const std::vector<LmSteps>& streams, int64_t n_q, int64_t rows,
                   int64_t run_rows);

}  // namespace encodec_fast::cuda
