// Batches of streams in Python's terms: blocks as lists of arrays, or as one array of them all, on
// whatever device they run.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

#include "bindings/arrays.h"
#include "bindings/exclusive.h"
#include "engine/block.h"

namespace encodec_fast {

// An encoder, a decoder or a network, and whether a thread is in it.
template <typename Coder>
struct Shared {
  // What `coder` takes: two arguments at least, so that this neither copies nor moves.
  template <typename First, typename Second, typename... Rest>
  Shared(First&& first, Second&& second, Rest&&... rest)
      : coder(std::forward<First>(first), std::forward<Second>(second),
              std::forward<Rest>(rest)...) {}
  void reset(std::optional<int64_t> lane) {
    const Exclusive lock(busy);
    if (!lane) return coder.stream().reset();
    require(*lane >= 0 && *lane < coder.stream().lanes(), "lane: no such stream in the batch");
    coder.stream().reset(*lane);
  }
  void profile(bool on) {
    const Exclusive lock(busy);
    coder.profile(on);
  }
  Coder coder;
  std::atomic<bool> busy{false};
};

inline Start start_of(bool low_latency) { return low_latency ? Start::kLowLatency : Start::kExact; }

// Pointers and lengths of one array per stream; each must have `height` rows.
template <typename T>
std::vector<const T*> open_blocks(const std::vector<Array<T, 2>>& arrays,
                                  const std::vector<bool>& last, const std::vector<float>& scales,
                                  int64_t lanes, size_t height, std::vector<Block>& blocks) {
  require(static_cast<int64_t>(arrays.size()) == lanes && last.size() == arrays.size() &&
              scales.size() == arrays.size(),
          "blocks: expected one array, one last flag and one scale per stream of the batch");
  std::vector<const T*> data;
  for (size_t l = 0; l < arrays.size(); ++l) {
    require(arrays[l].shape(0) == height, "blocks: an array has the wrong number of rows");
    data.push_back(arrays[l].data());
    blocks.push_back({static_cast<int64_t>(arrays[l].shape(1)), last[l]});
  }
  return data;
}

// The same of one array [lanes][height][rows].
template <typename T>
std::vector<const T*> open_batch(const Array<T, 3>& array, int64_t lanes, size_t height,
                                 std::vector<Block>& blocks) {
  require(static_cast<int64_t>(array.shape(0)) == lanes && array.shape(1) == height,
          "blocks: expected [streams of the batch, rows of one, any]");
  const size_t length = array.shape(2);
  std::vector<const T*> data;
  data.reserve(array.shape(0));
  for (size_t l = 0; l < array.shape(0); ++l) data.push_back(array.data() + l * height * length);
  blocks.assign(array.shape(0), {static_cast<int64_t>(length), false});
  return data;
}

// Planar arrays [channels, rows] of lanes that lie behind each other.
inline std::vector<NewArray<float, 2>> split_planar(const float* from,
                                                    const std::vector<int64_t>& rows,
                                                    int64_t channels) {
  std::vector<NewArray<float, 2>> out;
  for (const int64_t n : rows) {
    auto array = new_array<float>(static_cast<size_t>(channels), static_cast<size_t>(n));
    std::copy_n(from, array.size(), array.data());
    from += array.size();
    out.push_back(std::move(array));
  }
  return out;
}

// Codes [n_q, frames] of lanes that lie side by side.
inline std::vector<NewArray<uint16_t, 2>> split_codes(const uint16_t* codes,
                                                      const std::vector<int64_t>& frames,
                                                      int64_t n_q) {
  const size_t q_count = static_cast<size_t>(n_q);
  size_t all = 0;
  for (const int64_t n : frames) all += static_cast<size_t>(n);
  std::vector<NewArray<uint16_t, 2>> out;
  size_t first = 0;
  for (const int64_t count : frames) {
    const size_t n = static_cast<size_t>(count);
    auto array = new_array<uint16_t>(q_count, n);
    for (size_t q = 0; q < q_count; ++q)
      std::copy_n(codes + q * all + first, n, array.data() + q * n);
    out.push_back(std::move(array));
    first += n;
  }
  return out;
}

// The rows that every lane has finished.
inline size_t rows_of_each(const std::vector<int64_t>& rows) {
  for (const int64_t n : rows) require(n == rows.front(), "blocks: the streams are not in step");
  return static_cast<size_t>(rows.front());
}

// As split_planar, in one array [lanes, channels, rows].
inline NewArray<float, 3> batch_of_planar(const float* from, const std::vector<int64_t>& rows,
                                          int64_t channels) {
  auto out = new_array<float>(rows.size(), static_cast<size_t>(channels), rows_of_each(rows));
  std::copy_n(from, out.size(), out.data());
  return out;
}

// As split_codes, in one array [lanes, n_q, frames].
inline NewArray<uint16_t, 3> batch_of_codes(const uint16_t* codes,
                                            const std::vector<int64_t>& frames, int64_t n_q) {
  const size_t q_count = static_cast<size_t>(n_q), n = rows_of_each(frames);
  auto out = new_array<uint16_t>(frames.size(), q_count, n);
  uint16_t* to = out.data();
  for (size_t l = 0; l < frames.size(); ++l) {
    for (size_t q = 0; q < q_count; ++q)
      to = std::copy_n(codes + (q * frames.size() + l) * n, n, to);
  }
  return out;
}

}  // namespace encodec_fast
