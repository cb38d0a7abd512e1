// Probabilities to intervals and bytes, and back: a warp per distribution, a thread per stream
// where its bytes are written.
#include "cuda/launch.h"
#include "cuda/lm_kernels.h"
#include "cuda/warp.h"
#include "kernels/cdf_width.h"
#include "kernels/elements.h"

namespace encodec_fast::cuda {
namespace {

using namespace EF_ISA;

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / kWarp;

__device__ inline int64_t warp_of_grid() {
  return static_cast<int64_t>(blockIdx.x) * kWarps + static_cast<int64_t>(threadIdx.x) / kWarp;
}

// Of the warp's x [n]. A thread reads what it wrote itself. Adding +0 for an element that there is
// not changes no sum: none is -0.
__device__ void soften(float* x, int64_t n) {
  const int lane = lane_of_warp();
  float most = kLowest;
  for (int64_t i = lane; i < n; i += kWarp) most = x[i] > most ? x[i] : most;
  most = largest(most, kWarp);
  Vec sum = {0.0f};
  for (int64_t begin = 0; begin < n; begin += kWarp) {
    const int64_t i = begin + lane;
    float term = 0.0f;
    if (i < n) x[i] = term = term_of(x[i], most);
    // The lanes of the fixed sum take 16 elements at a time.
    const float other = __shfl_xor_sync(kWholeWarp, term, kFoldLanes);
    const bool lower = lane < kFoldLanes;
    sum = (sum + Vec{lower ? term : other}) + Vec{lower ? other : term};
  }
  const Vec total = {fold_sum(sum.v)};
  for (int64_t i = lane; i < n; i += kWarp) store(x + i, load(x + i) / total);
}

__global__ void __launch_bounds__(kThreads) soften_all(LmDistributions d) {
  const int64_t index = warp_of_grid();
  if (index < d.rows * d.n_q) soften(d.p + index * d.padded, d.entries);
}

// As cdf_interval (kernels/cdf.h): of width 0 where the distribution is not valid.
__device__ Interval interval_of(const float* p, int64_t n, int64_t symbol) {
  const float factor = cdf_factor(n);
  uint64_t total = 0;
  uint64_t before = 0;
  bool bad = false;
  for (int64_t i = lane_of_warp(); i < n; i += kWarp) {
    const float value = p[i];
    if (!is_probability(value)) {
      bad = true;
      continue;
    }
    const uint32_t width = cdf_width(value, factor);
    total += width;
    if (i < symbol) before += width;
  }
  total = total_of(total);
  before = total_of(before);
  if (__ballot_sync(kWholeWarp, bad ? 1 : 0) != 0 || total > kCdfTotal) return {0, 0};
  return {static_cast<uint32_t>(before), cdf_width(p[symbol], factor)};
}

// As cdf_find: which 128 symbols the target is among, then which one; -1 where the distribution is
// not valid or no interval holds the target.
constexpr int64_t kGroup = 4 * kWarp;  // whose widths sum to less than 2^32

__device__ int64_t find_symbol(const float* p, int64_t n, uint32_t target, Interval* interval) {
  const float factor = cdf_factor(n);
  const int lane = lane_of_warp();
  uint64_t total = 0;
  uint32_t before = 0;  // widths of the groups before `home`
  int64_t home = -1;
  bool bad = false;
  for (int64_t begin = 0; begin < n; begin += kGroup) {
    const int64_t end = n - begin < kGroup ? n : begin + kGroup;
    uint32_t sum = 0;
    for (int64_t i = begin + lane; i < end; i += kWarp) {
      const float value = p[i];
      if (is_probability(value)) {
        sum += cdf_width(value, factor);
      } else {
        bad = true;
      }
    }
    sum = total_of(sum);
    if (home < 0 && total + sum > target) {
      home = begin;
      before = static_cast<uint32_t>(total);
    }
    total += sum;
  }
  if (__ballot_sync(kWholeWarp, bad ? 1 : 0) != 0 || total > kCdfTotal || home < 0) return -1;
  for (int64_t begin = home;; begin += kWarp) {  // ends: the target is in this group
    const int64_t i = begin + lane;
    const uint32_t width = i < n ? cdf_width(p[i], factor) : 0;
    const uint32_t end = before + running_totals(width);
    const unsigned above = __ballot_sync(kWholeWarp, end > target ? 1 : 0);
    if (above != 0) {
      const int found = __ffs(static_cast<int>(above)) - 1;
      interval->width = __shfl_sync(kWholeWarp, width, found);
      interval->start = __shfl_sync(kWholeWarp, end, found) - interval->width;
      return begin + found;
    }
    before = __shfl_sync(kWholeWarp, end, kWarp - 1);
  }
}

__global__ void __launch_bounds__(kThreads)
    find_all(LmDistributions d, LmRuns block, Interval* intervals, int* bad) {
  const int64_t index = warp_of_grid();
  if (index >= d.rows * d.n_q) return;
  const int64_t row = index / d.n_q;
  const LmRun& run = block.runs[part_of(block.runs, block.count, row)];
  const int64_t code = run.codes[(row - run.first + 1) * d.n_q + index % d.n_q];
  const Interval interval = interval_of(d.p + index * d.padded, d.entries, code);
  if (lane_of_warp() != 0) return;
  intervals[index] = interval;
  if (interval.width == 0) *bad = 1;
}

constexpr int kWriters = 32;  // threads of a block, so that few streams are on many processors

__global__ void __launch_bounds__(kWriters)
    write_spans(const LmSpan* spans, int64_t count, const Interval* intervals, int64_t n_q,
                RangeWriter* writers) {
  const int64_t index = static_cast<int64_t>(blockIdx.x) * kWriters + threadIdx.x;
  if (index >= count) return;
  const LmSpan span = spans[index];
  const Interval* from = intervals + span.first * n_q;
  RangeWriter writer = writers[span.stream];
  for (int64_t i = 0; i < span.rows * n_q; ++i) {
    // One of width 0 is no interval; the call fails.
    if (from[i].width > 0) writer.encode(from[i]);
  }
  writers[span.stream] = writer;
}

__global__ void __launch_bounds__(kWriters) flush_all(RangeWriter* writers, int64_t count) {
  const int64_t index = static_cast<int64_t>(blockIdx.x) * kWriters + threadIdx.x;
  if (index < count) writers[index].flush();
}

__global__ void __launch_bounds__(kThreads)
    read_rows(LmDistributions d, LmRun* runs, LmReader* readers) {
  const int64_t row = warp_of_grid();
  if (row >= d.rows) return;
  const LmRun run = runs[row];
  if (run.rows == 0) return;
  LmReader reader = readers[row];  // every thread of the warp has it, and computes the same
  const float* p = d.p + row * d.n_q * d.padded;
  for (int64_t k = 0; k < d.n_q && !reader.damaged; ++k, p += d.padded) {
    Interval interval = {};
    const int64_t code = find_symbol(p, d.entries, reader.decoder.target(), &interval);
    reader.damaged = code < 0 || reader.decoder.overrun();
    if (reader.damaged) break;
    reader.decoder.consume(interval);
    if (lane_of_warp() == 0) run.codes[d.n_q + k] = static_cast<uint16_t>(code);
  }
  --reader.left;
  __syncwarp();  // all have read what now changes
  if (lane_of_warp() != 0) return;
  readers[row] = reader;
  LmRun& next = runs[row];
  ++next.entry, ++next.begin, ++next.end;
  next.codes += d.n_q;
  if (reader.damaged || reader.left == 0) next.rows = 0;
}

int64_t blocks_of(int64_t count, int each) { return (count + each - 1) / each; }

}  // namespace

void softmax(const LmDistributions& d, cudaStream_t stream) {
  launch(soften_all, blocks_of(d.rows * d.n_q, kWarps), kThreads, 0, stream, d);
}

void find_intervals(const LmDistributions& d, const LmRuns& block, Interval* intervals, int* bad,
                    cudaStream_t stream) {
  launch(find_all, blocks_of(d.rows * d.n_q, kWarps), kThreads, 0, stream, d, block, intervals,
         bad);
}

void write_codes(const LmSpan* spans, int64_t count, const Interval* intervals, int64_t n_q,
                 RangeWriter* writers, cudaStream_t stream) {
  launch(write_spans, blocks_of(count, kWriters), kWriters, 0, stream, spans, count, intervals, n_q,
         writers);
}

void flush(RangeWriter* writers, int64_t count, cudaStream_t stream) {
  launch(flush_all, blocks_of(count, kWriters), kWriters, 0, stream, writers, count);
}

void read_codes(const LmDistributions& d, LmRun* runs, LmReader* readers, cudaStream_t stream) {
  launch(read_rows, blocks_of(d.rows, kWarps), kThreads, 0, stream, d, runs, readers);
}

}  // namespace encodec_fast::cuda
