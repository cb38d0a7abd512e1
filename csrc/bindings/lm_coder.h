// The coder of a language model in Python's terms, on whatever device it runs.
#pragma once

#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <utility>
#include <vector>

#include "bindings/arrays.h"
#include "bindings/exclusive.h"
#include "engine/language_model.h"
#include "engine/lm_lanes.h"

namespace encodec_fast {

// More would be a caller's mistake: 62 hours at 75 steps a second.
inline constexpr int64_t kMaxLmSteps = 1 << 24;

using CodeRows = Array<uint16_t, 2>;

// A coder, and whether a thread is in it.
template <typename Coder>
struct SharedLmCoder {
  template <typename Model>
  SharedLmCoder(Model model, int64_t n_q, int64_t batch) : coder(std::move(model), n_q, batch) {}

  std::vector<nb::bytes> encode(const std::vector<int64_t>& streams,
                                const std::vector<CodeRows>& codes);
  std::vector<nb::object> decode(const std::vector<int64_t>& streams,
                                 const std::vector<nb::bytes>& data,
                                 const std::vector<int64_t>& frames);
  std::vector<NewArray<float, 3>> probabilities(const std::vector<int64_t>& streams,
                                                const std::vector<CodeRows>& codes);
  void reset(const std::vector<int64_t>& streams) {
    const Exclusive lock(busy);
    coder.reset(streams);
  }

  Coder coder;
  std::atomic<bool> busy{false};
};

// Copies, before the checks: another thread may write into the arrays.
template <typename Coder>
std::vector<LmCodes> make_codes(const Coder& coder, const std::vector<int64_t>& streams,
                                const std::vector<CodeRows>& codes) {
  require(streams.size() == codes.size(), "codes: expected one array per stream");
  std::vector<LmCodes> result;
  for (size_t i = 0; i < codes.size(); ++i) {
    const int64_t books = rows_of(codes[i]), steps = columns_of(codes[i]);
    require(books == coder.n_q(), "codes: expected [n_q, steps]");
    LmCodes one = {streams[i], steps, std::vector<uint16_t>(codes[i].size())};
    const uint16_t* from = codes[i].data();
    for (int64_t k = 0; k < books; ++k) {
      for (int64_t t = 0; t < steps; ++t) {
        const uint16_t code = *from++;
        require(code < coder.model().entries(), "codes: expected values below the model's entries");
        one.codes[static_cast<size_t>(t * books + k)] = code;
      }
    }
    result.push_back(std::move(one));
  }
  return result;
}

template <typename Coder>
std::vector<nb::bytes> SharedLmCoder<Coder>::encode(const std::vector<int64_t>& streams,
                                                    const std::vector<CodeRows>& codes) {
  const Exclusive lock(busy);
  const std::vector<LmCodes> all = make_codes(coder, streams, codes);
  std::vector<std::vector<uint8_t>> data;
  {
    nb::gil_scoped_release release;
    data = coder.encode(all);
  }
  std::vector<nb::bytes> result;
  result.reserve(data.size());
  for (const std::vector<uint8_t>& d : data) result.emplace_back(d.data(), d.size());
  return result;
}

template <typename Coder>
std::vector<nb::object> SharedLmCoder<Coder>::decode(const std::vector<int64_t>& streams,
                                                     const std::vector<nb::bytes>& data,
                                                     const std::vector<int64_t>& frames) {
  const Exclusive lock(busy);
  require(streams.size() == data.size(), "data: expected one payload per stream");
  require(streams.size() == frames.size(), "frames: expected one count per stream");
  std::vector<LmPayload> all;
  for (size_t i = 0; i < streams.size(); ++i) {
    require(frames[i] >= 0 && frames[i] <= kMaxLmSteps, "frames: expected 0..16777216");
    const auto* bytes = static_cast<const uint8_t*>(data[i].data());
    all.push_back({streams[i], frames[i], {bytes, bytes + data[i].size()}, {}, false});
  }
  {
    nb::gil_scoped_release release;
    coder.decode(all);
  }
  std::vector<nb::object> result;
  const size_t books = static_cast<size_t>(coder.n_q());
  for (const LmPayload& one : all) {
    if (one.damaged) {
      result.push_back(nb::none());
      continue;
    }
    const size_t steps = static_cast<size_t>(one.steps);
    auto array = new_array<uint16_t>(books, steps);
    for (size_t k = 0; k < books; ++k) {
      for (size_t t = 0; t < steps; ++t) array.data()[k * steps + t] = one.codes[t * books + k];
    }
    result.push_back(nb::cast(std::move(array)));
  }
  return result;
}

template <typename Coder>
std::vector<NewArray<float, 3>> SharedLmCoder<Coder>::probabilities(
    const std::vector<int64_t>& streams, const std::vector<CodeRows>& codes) {
  const Exclusive lock(busy);
  const std::vector<LmCodes> all = make_codes(coder, streams, codes);
  const size_t books = static_cast<size_t>(coder.n_q());
  const size_t entries = static_cast<size_t>(coder.model().entries());
  std::vector<NewArray<float, 3>> result;
  std::vector<float*> out;
  for (const LmCodes& one : all) {
    const size_t steps = static_cast<size_t>(one.steps);
    auto* data = new float[std::max<size_t>(steps * books * entries, 1)];
    nb::capsule owner(data, [](void* p) noexcept { delete[] static_cast<float*>(p); });
    result.emplace_back(data, std::initializer_list<size_t>{steps, books, entries}, owner);
    out.push_back(data);
  }
  {
    nb::gil_scoped_release release;
    coder.probabilities(all, out);
  }
  return result;
}

// The class `LmCoder` of a module; `open` makes a model ready.
template <typename Coder, typename Model, typename Open>
void bind_lm_coder(nb::module_& m, Open open) {
  using Self = SharedLmCoder<Coder>;
  nb::class_<Self>(m, "LmCoder",
                   "A batch of streams of codes, coded with a language model's probabilities. A "
                   "stream's context goes on from call to call until it is reset, which it must be "
                   "after damaged data.")
      .def(
          "__init__",
          [open](Self* self, const Model& lm, int64_t n_q, int64_t batch) {
            open(lm);
            new (self) Self(lm, n_q, batch);
          },
          "lm"_a, "n_q"_a, "batch"_a)
      .def("encode", &Self::encode, "streams"_a, "codes"_a.noconvert())
      .def("decode", &Self::decode, "streams"_a, "data"_a, "frames"_a)
      .def("probabilities", &Self::probabilities, "streams"_a, "codes"_a.noconvert())
      .def("reset", &Self::reset, "streams"_a);
}

}  // namespace encodec_fast
