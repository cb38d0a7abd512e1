#include "cuda/lm_plan.h"

#include <algorithm>
#include <deque>

namespace encodec_fast::cuda {
namespace {

// Steps of a stream in a block: many streams side by side let the range coders run beside each
// other, many steps read a stream's keys and values once for all of them.
constexpr int64_t kLeastShare = 16;

// `rows` steps of a stream from `step` on, in rows `first` and following of a block.
void add_runs(const LmSteps& stream, int64_t step, int64_t rows, int64_t first, int64_t n_q,
              int64_t run_rows, std::vector<LmRun>& runs) {
  const int64_t begin = stream.before + step + 1;
  for (int64_t row = 0; row < rows; row += run_rows) {
    runs.push_back({stream.cache, stream.codes + (step + row) * n_q, begin + row, begin,
                    begin + rows, std::min(run_rows, rows - row), first + row});
  }
}

}  // namespace

LmPlan plan_blocks(const std::vector<LmSteps>& streams, int64_t n_q, int64_t rows,
                   int64_t run_rows) {
  LmPlan plan;
  std::deque<size_t> waiting;
  std::vector<int64_t> done(streams.size(), 0);
  for (size_t i = 0; i < streams.size(); ++i) {
    if (streams[i].steps > 0) waiting.push_back(i);
  }
  while (!waiting.empty()) {
    LmBlock block = {plan.runs.size(), 0, plan.spans.size(), 0, 0};
    const int64_t share = std::max(kLeastShare, rows / static_cast<int64_t>(waiting.size()));
    // Each stream once: a run must not wait for another one's keys.
    for (size_t turns = waiting.size(); turns > 0 && block.rows < rows; --turns) {
      const size_t i = waiting.front();
      waiting.pop_front();
      const int64_t n = std::min({share, streams[i].steps - done[i], rows - block.rows});
      plan.spans.push_back({static_cast<int64_t>(i), done[i], block.rows, n});
      add_runs(streams[i], done[i], n, block.rows, n_q, run_rows, plan.runs);
      done[i] += n;
      block.rows += n;
      if (done[i] < streams[i].steps) waiting.push_back(i);
    }
    block.runs = plan.runs.size() - block.run;
    block.spans = plan.spans.size() - block.span;
    plan.blocks.push_back(block);
  }
  return plan;
}

}  // namespace encodec_fast::cuda
