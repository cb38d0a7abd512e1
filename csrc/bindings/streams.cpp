// Encoders and decoders: batches of streams.
#include <nanobind/stl/optional.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include "bindings/arrays.h"
#include "bindings/blocks.h"
#include "engine/coder.h"

namespace encodec_fast {
namespace {

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
  return split_codes(self.coder.codes().data(), self.coder.frames(), n_q);
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
  return split_planar(self.coder.audio().data(), self.coder.samples(), self.coder.channels());
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
  return split_planar(self.coder.out().data(), self.coder.rows(), graph.out_channels());
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
            new (self) Shared<Encoder>(std::shared_ptr<const Graph>(std::move(graph)),
                                       std::shared_ptr<const Codebooks>(std::move(books)), lanes,
                                       start_of(low_latency));
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
            new (self) Shared<Decoder>(std::shared_ptr<const Graph>(std::move(graph)),
                                       std::shared_ptr<const Codebooks>(std::move(books)), lanes,
                                       start_of(low_latency));
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
