// What Python calls of encoders, decoders and networks, on whatever device they run.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "bindings/arrays.h"
#include "bindings/blocks.h"

namespace encodec_fast {

// The host's memory where a coder's results lie.
template <typename T>
const T* begin_of(const std::vector<T>& results) {
  return results.data();
}
template <typename T>
const T* begin_of(const T* results) {
  return results;
}

template <typename Coder>
std::vector<NewArray<uint16_t, 2>> encode(Shared<Coder>& self,
                                          const std::vector<Array<float, 2>>& audio,
                                          const std::vector<bool>& last,
                                          const std::vector<float>& scales, int64_t n_q) {
  const Exclusive lock(self.busy);
  std::vector<Block> blocks;
  const auto data = open_blocks(audio, last, scales, self.coder.stream().lanes(),
                                static_cast<size_t>(self.coder.channels()), blocks);
  {
    nb::gil_scoped_release release;
    self.coder.run(data, scales, blocks, n_q);
  }
  return split_codes(begin_of(self.coder.codes()), self.coder.frames(), n_q);
}

template <typename Coder>
std::vector<NewArray<float, 2>> decode(Shared<Coder>& self,
                                       const std::vector<Array<uint16_t, 2>>& codes,
                                       const std::vector<bool>& last,
                                       const std::vector<float>& scales) {
  const Exclusive lock(self.busy);
  require(!codes.empty(), "codes: expected one array per stream of the batch");
  const size_t n_q = codes.front().shape(0);
  std::vector<Block> blocks;
  const auto data = open_blocks(codes, last, scales, self.coder.stream().lanes(), n_q, blocks);
  {
    nb::gil_scoped_release release;
    self.coder.run(data, scales, blocks, static_cast<int64_t>(n_q));
  }
  return split_planar(begin_of(self.coder.audio()), self.coder.samples(), self.coder.channels());
}

// Streams that go on in step: one array [batch][height][rows] in, one array out. A live step of
// thousands of streams would spend its time on arrays of their own.
template <typename Coder>
NewArray<uint16_t, 3> encode_batch(Shared<Coder>& self, const Array<float, 3>& audio, int64_t n_q) {
  const Exclusive lock(self.busy);
  std::vector<Block> blocks;
  const auto data = open_batch(audio, self.coder.stream().lanes(),
                               static_cast<size_t>(self.coder.channels()), blocks);
  const std::vector<float> ones(blocks.size(), 1.0f);
  {
    nb::gil_scoped_release release;
    self.coder.run(data, ones, blocks, n_q);
  }
  return batch_of_codes(begin_of(self.coder.codes()), self.coder.frames(), n_q);
}

template <typename Coder>
NewArray<float, 3> decode_batch(Shared<Coder>& self, const Array<uint16_t, 3>& codes) {
  const Exclusive lock(self.busy);
  const size_t n_q = codes.shape(1);
  std::vector<Block> blocks;
  const auto data = open_batch(codes, self.coder.stream().lanes(), n_q, blocks);
  const std::vector<float> ones(blocks.size(), 1.0f);
  {
    nb::gil_scoped_release release;
    self.coder.run(data, ones, blocks, static_cast<int64_t>(n_q));
  }
  return batch_of_planar(begin_of(self.coder.audio()), self.coder.samples(), self.coder.channels());
}

template <typename Coder>
std::vector<NewArray<float, 2>> pass(Shared<Coder>& self, const std::vector<Array<float, 2>>& in,
                                     const std::vector<bool>& last) {
  const Exclusive lock(self.busy);
  std::vector<Block> blocks;
  const Graph& graph = self.coder.graph();
  const std::vector<float> ones(in.size(), 1.0f);
  const auto data = open_blocks(in, last, ones, self.coder.stream().lanes(),
                                static_cast<size_t>(graph.in_channels()), blocks);
  {
    nb::gil_scoped_release release;
    self.coder.run(data, blocks);
  }
  return split_planar(begin_of(self.coder.out()), self.coder.rows(), graph.out_channels());
}

}  // namespace encodec_fast
