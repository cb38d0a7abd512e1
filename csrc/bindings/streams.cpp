// Encoders and decoders: batches of streams.
#include <nanobind/stl/optional.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include "bindings/arrays.h"
#include "bindings/blocks.h"
#include "bindings/stream_calls.h"
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
      .def("run", encode<Encoder>, "audio"_a, "last"_a, "scales"_a, "n_q"_a)
      .def("run_batch", encode_batch<Encoder>, "audio"_a, "n_q"_a)
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
      .def("run", decode<Decoder>, "codes"_a, "last"_a, "scales"_a)
      .def("run_batch", decode_batch<Decoder>, "codes"_a)
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
      .def("run", pass<Network>, "blocks"_a, "last"_a)
      .def("reset", &Shared<Network>::reset, "lane"_a = nb::none());
}

}  // namespace encodec_fast
