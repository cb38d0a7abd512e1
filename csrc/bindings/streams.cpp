// Encoders and decoders: batches of streams.
#include <nanobind/stl/optional.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <atomic>

#include "bindings/arrays.h"
#include "bindings/exclusive.h"
#include "engine/coder.h"

namespace encodec_fast {
namespace {

template <typename Coder>
struct Shared {
  Shared(std::shared_ptr<const Graph> graph, std::shared_ptr<const Codebooks> books, int64_t lanes,
         bool low_latency)
      : coder(std::move(graph), std::move(books), lanes,
              low_latency ? Start::kLowLatency : Start::kExact) {}
  Shared(std::shared_ptr<const Graph> graph, int64_t lanes) : coder(std::move(graph), lanes) {}
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

std::string describe(const Op& op) {
  const std::string channels =
      " " + std::to_string(op.in_channels) + "->" + std::to_string(op.out_channels);
  if (op.kind == OpKind::kLstm) return "lstm" + channels;
  return (op.kind == OpKind::kConv ? "conv" : "conv_transpose") + channels + " k" +
         std::to_string(op.kernel) + " s" + std::to_string(op.stride);
}

using Timings = std::vector<std::tuple<std::string, double, int64_t>>;

template <typename Coder>
Timings timings(Shared<Coder>& self) {
  const Exclusive lock(self.busy);
  Timings result;
  for (const Timing& t : self.coder.stream().timings()) {
    const size_t index = result.size();
    result.emplace_back(std::to_string(index) + " " + describe(self.coder.graph().ops()[index]),
                        t.seconds, t.macs);
  }
  const Timing& books = self.coder.codebooks();
  if (!result.empty()) result.emplace_back("rvq", books.seconds, books.macs);
  return result;
}

// Pointers and lengths of one array per stream; each must have `height` rows (any number if 0, but
// the same in all).
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

// Planar arrays [channels, rows] of lanes that lie behind each other.
std::vector<NewArray<float, 2>> split(const std::vector<float>& planar,
                                      const std::vector<int64_t>& rows, int64_t channels) {
  const float* from = planar.data();
  std::vector<NewArray<float, 2>> out;
  for (const int64_t n : rows) {
    auto array = new_array<float>(static_cast<size_t>(channels), static_cast<size_t>(n));
    std::copy_n(from, array.size(), array.data());
    from += array.size();
    out.push_back(std::move(array));
  }
  return out;
}

std::vector<NewArray<uint16_t, 2>> encode(Shared<Encoder>& self,
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
  const std::vector<uint16_t>& codes = self.coder.codes();
  const size_t q_count = static_cast<size_t>(n_q);
  const size_t all = codes.size() / q_count;
  std::vector<NewArray<uint16_t, 2>> out;
  size_t first = 0;
  for (const int64_t frames : self.coder.frames()) {
    const size_t n = static_cast<size_t>(frames);
    auto array = new_array<uint16_t>(q_count, n);
    for (size_t q = 0; q < q_count; ++q)
      std::copy_n(codes.data() + q * all + first, n, array.data() + q * n);
    out.push_back(std::move(array));
    first += n;
  }
  return out;
}

std::vector<NewArray<float, 2>> decode(Shared<Decoder>& self,
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
  return split(self.coder.audio(), self.coder.samples(), self.coder.channels());
}

std::vector<NewArray<float, 2>> pass(Shared<Network>& self, const std::vector<Array<float, 2>>& in,
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
  return split(self.coder.out(), self.coder.rows(), graph.out_channels());
}

}  // namespace

void bind_streams(nb::module_& m) {
  using Graphs = std::shared_ptr<Graph>;
  using Books = std::shared_ptr<Codebooks>;
  nb::class_<Shared<Encoder>>(m, "Encoder", "A batch of streams from audio to codes.")
      .def(
          "__init__",
          [](Shared<Encoder>* self, Graphs graph, Books books, int64_t lanes, bool low_latency) {
            graph->seal();
            new (self) Shared<Encoder>(std::move(graph), std::move(books), lanes, low_latency);
          },
          "graph"_a, "codebooks"_a, "lanes"_a, "low_latency"_a)
      .def("run", encode, "audio"_a, "last"_a, "scales"_a, "n_q"_a)
      .def("profile", &Shared<Encoder>::profile, "on"_a)
      .def("timings", timings<Encoder>)
      .def("reset", &Shared<Encoder>::reset, "lane"_a = nb::none());
  nb::class_<Shared<Decoder>>(m, "Decoder", "A batch of streams from codes to audio.")
      .def(
          "__init__",
          [](Shared<Decoder>* self, Graphs graph, Books books, int64_t lanes, bool low_latency) {
            graph->seal();
            new (self) Shared<Decoder>(std::move(graph), std::move(books), lanes, low_latency);
          },
          "graph"_a, "codebooks"_a, "lanes"_a, "low_latency"_a)
      .def("run", decode, "codes"_a, "last"_a, "scales"_a)
      .def("profile", &Shared<Decoder>::profile, "on"_a)
      .def("timings", timings<Decoder>)
      .def("reset", &Shared<Decoder>::reset, "lane"_a = nb::none());
  nb::class_<Shared<Network>>(m, "Network", "A graph alone, for a batch of streams.")
      .def(
          "__init__",
          [](Shared<Network>* self, Graphs graph, int64_t lanes) {
            graph->seal();
            new (self) Shared<Network>(std::move(graph), lanes);
          },
          "graph"_a, "lanes"_a)
      .def("run", pass, "blocks"_a, "last"_a)
      .def("reset", &Shared<Network>::reset, "lane"_a = nb::none());
}

}  // namespace encodec_fast
