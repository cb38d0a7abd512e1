// The Python module `_cuda`. Graphs and codebooks are those of `_core`.
#include <nanobind/stl/optional.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include "bindings/arrays.h"
#include "bindings/blocks.h"
#include "bindings/cuda_language_model.h"
#include "bindings/stream_calls.h"
#include "cuda/coder.h"
#include "cuda/search.h"
#include "cuda/signals.h"

namespace encodec_fast {
namespace {

using cuda::DeviceBooks;
using cuda::DeviceGraph;
using Graphs = std::shared_ptr<DeviceGraph>;
using Books = std::shared_ptr<DeviceBooks>;

template <typename Coder>
nb::class_<Shared<Coder>> bind_coder(nb::module_& m, const char* name, const char* about) {
  using Self = Shared<Coder>;
  return nb::class_<Self>(m, name, about)
      .def(
          "__init__",
          [](Self* self, Graphs graph, Books books, int64_t lanes, bool low_latency) {
            new (self) Self(std::move(graph), std::move(books), lanes, start_of(low_latency));
          },
          "graph"_a, "codebooks"_a, "lanes"_a, "low_latency"_a)
      .def("reset", &Self::reset, "lane"_a = nb::none());
}

void bind_weights(nb::module_& m) {
  nb::class_<DeviceGraph>(m, "DeviceGraph", "A graph's weights on a device.")
      .def(
          "__init__",
          [](DeviceGraph* self, std::shared_ptr<Graph> graph, int device) {
            graph->seal();
            new (self) DeviceGraph(std::move(graph), device);
          },
          "graph"_a, "device"_a)
      .def_prop_ro("device", &DeviceGraph::device);
  nb::class_<DeviceBooks>(m, "DeviceCodebooks", "Codebooks on a device.")
      .def(nb::init<const Codebooks&, int>(), "codebooks"_a, "device"_a)
      .def(
          "encode",
          [](const DeviceBooks& self, uintptr_t latents, int64_t rows, int64_t n_q, uintptr_t codes,
             uintptr_t stream) {
            const nb::gil_scoped_release release;
            cuda::rvq_encode(self, {latents, rows, n_q, codes, stream});
          },
          "latents"_a, "rows"_a, "n_q"_a, "codes"_a, "stream"_a,
          "float32 [rows, dimension] to uint16 [n_q, rows], by addresses on the device, in the "
          "order of "
          "the stream.")
      .def(
          "decode",
          [](const DeviceBooks& self, uintptr_t codes, int64_t rows, int64_t n_q, uintptr_t latents,
             uintptr_t stream) {
            const nb::gil_scoped_release release;
            cuda::rvq_decode(self, {latents, rows, n_q, codes, stream});
          },
          "codes"_a, "rows"_a, "n_q"_a, "latents"_a, "stream"_a,
          "uint16 [n_q, rows] to float32 [rows, dimension], by addresses on the device; waits.")
      .def_prop_ro("device", &DeviceBooks::device);
}

// A network and whether a thread is in it.
struct SignalsInUse {
  SignalsInUse(Graphs graph, int64_t lanes) : network(std::move(graph), lanes) {}
  cuda::SignalNetwork network;
  std::atomic<bool> busy{false};
};

void bind_signals(nb::module_& m) {
  nb::class_<SignalsInUse>(m, "SignalNetwork", "A graph on whole signals on the device.")
      .def(nb::init<Graphs, int64_t>(), "graph"_a, "lanes"_a)
      .def(
          "run",
          [](SignalsInUse& self, uintptr_t in, uintptr_t out, int64_t batch, int64_t rows,
             const std::vector<int64_t>& ends, uintptr_t stream) {
            const Exclusive lock(self.busy);
            const nb::gil_scoped_release release;
            self.network.run({in, out, batch, rows, stream}, ends);
          },
          "signals"_a, "out"_a, "batch"_a, "rows"_a, "ends"_a, "stream"_a,
          "float32 [batch, channels, rows] to [batch, out channels, rows * up / down, rounded up], "
          "by addresses on the device, in blocks that end at `ends`, in the order of the stream.");
}

}  // namespace
}  // namespace encodec_fast

NB_MODULE(_cuda, m) {
  nanobind::set_leak_warnings(false);
  using namespace encodec_fast;
  m.doc() = "The CUDA part of encodec_fast.";
  nb::module_::import_("encodec_fast._core");  // whose types this module takes
  const auto error = nb::exception<cuda::DeviceError>(m, "DeviceError", PyExc_OSError);
  // NOLINTNEXTLINE(bugprone-unused-raii,bugprone-throw-keyword-missing): it binds a class.
  nb::exception<cuda::OutOfMemory>(m, "OutOfMemoryError", error);
  m.def("device_count", cuda::device_count, "Devices; DeviceError says why there are none.");
  m.def(
      "device_info",
      [](int device) {
        const cuda::DeviceInfo info = cuda::device_info(device);
        return std::make_tuple(info.name, info.major, info.minor, info.multiprocessors,
                               info.memory);
      },
      "device"_a, "Name, compute capability (two numbers), multiprocessors, bytes of memory.");
  bind_weights(m);
  bind_signals(m);
  bind_cuda_language_model(m);
  bind_coder<cuda::Encoder>(m, "Encoder", "A batch of streams from audio to codes.")
      .def("run", encode<cuda::Encoder>, "audio"_a, "last"_a, "scales"_a, "n_q"_a)
      .def("run_batch", encode_batch<cuda::Encoder>, "audio"_a, "n_q"_a);
  bind_coder<cuda::Decoder>(m, "Decoder", "A batch of streams from codes to audio.")
      .def("run", decode<cuda::Decoder>, "codes"_a, "last"_a, "scales"_a)
      .def("run_batch", decode_batch<cuda::Decoder>, "codes"_a);
  nb::class_<Shared<cuda::Network>>(m, "Network", "A graph alone, for a batch of streams.")
      .def(
          "__init__",
          [](Shared<cuda::Network>* self, Graphs graph, int64_t lanes) {
            new (self) Shared<cuda::Network>(std::move(graph), lanes);
          },
          "graph"_a, "lanes"_a)
      .def("run", pass<cuda::Network>, "blocks"_a, "last"_a)
      .def("reset", &Shared<cuda::Network>::reset, "lane"_a = nb::none());
}
