// Packed bits.
#include <vector>

#include "bindings/arrays.h"
#include "entropy/bitpack.h"

namespace encodec_fast {
namespace {

nb::bytes to_bytes(const std::vector<uint8_t>& v) { return nb::bytes(v.data(), v.size()); }

NewArray<uint16_t, 1> unpack(BitUnpacker& self, const nb::bytes& data) {
  std::vector<uint16_t> values;
  self.push(static_cast<const uint8_t*>(data.data()), static_cast<int64_t>(data.size()), values);
  auto* kept = new std::vector<uint16_t>(std::move(values));
  nb::capsule owner(kept, [](void* p) noexcept { delete static_cast<std::vector<uint16_t>*>(p); });
  return NewArray<uint16_t, 1>(kept->data(), {kept->size()}, owner);
}

}  // namespace

void bind_entropy(nb::module_& m) {
  nb::class_<BitPacker>(m, "BitPacker", "Packs values of a fixed number of bits, lowest bit first.")
      .def(nb::init<int>(), "bits"_a)
      .def(
          "push",
          [](BitPacker& self, const Array<uint16_t, 1>& values) {
            std::vector<uint8_t> out;
            self.push(values.data(), static_cast<int64_t>(values.size()), out);
            return to_bytes(out);
          },
          "values"_a)
      .def("flush", [](BitPacker& self) {
        std::vector<uint8_t> out;
        self.flush(out);
        return to_bytes(out);
      });
  nb::class_<BitUnpacker>(m, "BitUnpacker", "The inverse of BitPacker.")
      .def(nb::init<int>(), "bits"_a)
      .def("push", unpack, "data"_a);
}

}  // namespace encodec_fast
