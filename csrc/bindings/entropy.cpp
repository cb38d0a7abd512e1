// Packed bits, checksums and static tables.
#include <utility>
#include <vector>

#include "bindings/arrays.h"
#include "entropy/bitpack.h"
#include "entropy/crc32c.h"
#include "entropy/static_coder.h"

namespace encodec_fast {
namespace {

nb::bytes pack(BitPacker& self, const Array<uint16_t, 1>& values) {
  const auto count = static_cast<int64_t>(values.size());
  // Filled in place: a copy would take as long as the packing.
  auto out = nb::steal<nb::bytes>(PyBytes_FromStringAndSize(nullptr, self.packed_size(count)));
  if (!out.is_valid()) nb::raise_python_error();
  self.push(values.data(), count, reinterpret_cast<uint8_t*>(PyBytes_AsString(out.ptr())));
  return out;
}

NewArray<uint16_t, 1> unpack(BitUnpacker& self, const nb::bytes& data) {
  const auto size = static_cast<int64_t>(data.size());
  auto out = new_array<uint16_t>(static_cast<size_t>(self.unpacked_size(size)));
  self.push(bytes_begin(data), size, out.data());
  return out;
}

nb::bytes encode_static(const StaticCoder& self, const Array<uint16_t, 2>& codes) {
  require(rows_of(codes) >= 1 && rows_of(codes) <= self.books(),
          "codes: expected one row for each of 1 to all codebooks");
  std::vector<uint8_t> out;
  {
    nb::gil_scoped_release release;
    out = self.encode(codes.data(), rows_of(codes), columns_of(codes));
  }
  return to_bytes(out);
}

NewArray<uint16_t, 2> decode_static(const StaticCoder& self, const nb::bytes& data, int64_t n_q,
                                    int64_t frames) {
  require(n_q >= 1 && n_q <= self.books(), "n_q: expected 1 to all codebooks");
  require(frames >= 0, "frames: must not be negative");
  std::vector<uint16_t> codes;
  {
    nb::gil_scoped_release release;
    codes = self.decode(bytes_begin(data), data.size(), n_q, frames);
  }
  const auto books = static_cast<size_t>(n_q);
  const auto steps = static_cast<size_t>(frames);
  auto array = new_array<uint16_t>(books, steps);
  for (size_t t = 0; t < steps; ++t) {
    for (size_t k = 0; k < books; ++k) array.data()[k * steps + t] = codes[t * books + k];
  }
  return array;
}

uint32_t checksum(const nb::bytes& data, uint32_t value) {
  const uint8_t* begin = bytes_begin(data);
  const size_t size = data.size();
  nb::gil_scoped_release release;
  return crc32c(begin, size, value);
}

}  // namespace

void bind_entropy(nb::module_& m) {
  nb::class_<BitPacker>(m, "BitPacker", "Packs values of a fixed number of bits, lowest bit first.")
      .def(nb::init<int>(), "bits"_a)
      .def("push", pack, "values"_a)
      .def("flush", [](BitPacker& self) {
        uint8_t last = 0;
        return nb::bytes(&last, self.flush(&last) ? 1 : 0);
      });
  nb::class_<BitUnpacker>(m, "BitUnpacker", "The inverse of BitPacker.")
      .def(nb::init<int>(), "bits"_a)
      .def("push", unpack, "data"_a);
  nb::class_<StaticCoder>(m, "StaticCoder", "Codes by one fixed distribution per codebook.")
      .def(
          "__init__",
          [](StaticCoder* self, const Array<uint32_t, 2>& widths) {
            new (self) StaticCoder(widths.data(), rows_of(widths), columns_of(widths));
          },
          "widths"_a)
      .def("encode", encode_static, "codes"_a)
      .def("decode", decode_static, "data"_a, "n_q"_a, "frames"_a);
  m.def("crc32c", checksum, "data"_a, "value"_a = 0,
        "The CRC-32C of data behind bytes whose CRC-32C is `value`.");
}

}  // namespace encodec_fast
