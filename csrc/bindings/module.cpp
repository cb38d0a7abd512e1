// The Python module `_core`.
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include "bindings/arrays.h"
#include "dispatch.h"
#include "engine/coder.h"

NB_MODULE(_core, m) {
  // PyTorch keeps what its operators refer to until the process ends, codebooks among it.
  nanobind::set_leak_warnings(false);
  using namespace encodec_fast;
  m.doc() = "The native core of encodec_fast.";
  bind_program(m);
  bind_streams(m);
  bind_entropy(m);
  bind_coders(m);
  bind_language_model(m);
  m.def(
      "isa", [] { return std::string(isa().name); },
      "The instruction set in use: portable, avx2, avx512 or avx512vnni.");
  m.def("supported_isas", supported_isas, "The instruction sets that this CPU and build have.");
  m.def(
      "segment_scale",
      [](const Array<float, 2>& audio) {
        require(audio.shape(0) >= 1 && audio.shape(1) >= 1, "audio: must not be empty");
        return segment_scale(audio.data(), static_cast<int64_t>(audio.shape(0)),
                             static_cast<int64_t>(audio.shape(1)));
      },
      "audio"_a, "The level by which a segment is divided.");
}
