// The entropy language model and its coder.
#include "engine/language_model.h"

#include <nanobind/stl/optional.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/vector.h>

#include <atomic>
#include <optional>

#include "bindings/arrays.h"
#include "bindings/exclusive.h"
#include "engine/lm_coder.h"

namespace encodec_fast {
namespace {

// More would be a caller's mistake: 62 hours at 75 steps a second.
constexpr int64_t kMaxSteps = 1 << 24;

using Row = Array<float, 1>;

LayerNorm make_norm(const Row& scale, const Row& offset) {
  return {{scale.data(), scale.data() + scale.size()},
          {offset.data(), offset.data() + offset.size()}};
}

// Weights of type T: float, or bfloat16 as uint16.
template <typename T>
Matrix make_matrix(const Array<T, 2>& weight, const Row& bias) {
  require(bias.size() == weight.shape(1), "bias: expected one value per column of the weight");
  return pack_matrix(weight.data(), rows_of(weight), columns_of(weight), bias.data());
}

template <typename T>
void add_layer(LanguageModel& model, const Array<T, 2>& qkv, const Row& qkv_bias,
               const Array<T, 2>& out, const Row& out_bias, const Array<T, 2>& up,
               const Row& up_bias, const Array<T, 2>& down, const Row& down_bias, const Row& scale1,
               const Row& offset1, const Row& scale2, const Row& offset2) {
  model.append({make_matrix(qkv, qkv_bias), make_matrix(out, out_bias), make_matrix(up, up_bias),
                make_matrix(down, down_bias), make_norm(scale1, offset1),
                make_norm(scale2, offset2)});
}

void keep_embedding(LmBook& book, const Array<float, 2>& e) {
  book.embedding.assign(e.data(), e.data() + e.size());
}
void keep_embedding(LmBook& book, const Array<uint16_t, 2>& e) {
  book.embedding16.assign(e.data(), e.data() + e.size());
}

template <typename T>
void add_codebook(LanguageModel& model, const Array<T, 2>& embedding, const Array<T, 2>& head,
                  const Row& bias) {
  require(columns_of(embedding) == model.dim(), "embedding: expected [entries + 1, dim]");
  LmBook book;
  keep_embedding(book, embedding);
  book.head = make_matrix(head, bias);
  model.append(std::move(book));
}

template <typename T>
void bind_parts(nb::class_<LanguageModel>& model) {
  model
      .def("layer", add_layer<T>, "qkv"_a.noconvert(), "qkv_bias"_a, "out"_a.noconvert(),
           "out_bias"_a, "up"_a.noconvert(), "up_bias"_a, "down"_a.noconvert(), "down_bias"_a,
           "scale1"_a, "offset1"_a, "scale2"_a, "offset2"_a)
      .def("codebook", add_codebook<T>, "embedding"_a.noconvert(), "head"_a.noconvert(), "bias"_a);
}

struct SharedLmCoder {
  SharedLmCoder(std::shared_ptr<const LanguageModel> model, int64_t n_q, int64_t batch)
      : coder(std::move(model), n_q, batch) {}
  LmCoder coder;
  std::atomic<bool> busy{false};
};

using Codes = Array<uint16_t, 2>;

// Copies, before the checks: another thread may write into the arrays.
std::vector<LmCodes> make_codes(const LmCoder& coder, const std::vector<int64_t>& streams,
                                const std::vector<Codes>& codes) {
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

std::vector<nb::bytes> encode(SharedLmCoder& self, const std::vector<int64_t>& streams,
                              const std::vector<Codes>& codes) {
  const Exclusive lock(self.busy);
  const std::vector<LmCodes> all = make_codes(self.coder, streams, codes);
  std::vector<std::vector<uint8_t>> data;
  {
    nb::gil_scoped_release release;
    data = self.coder.encode(all);
  }
  std::vector<nb::bytes> result;
  result.reserve(data.size());
  for (const std::vector<uint8_t>& d : data) result.emplace_back(d.data(), d.size());
  return result;
}

std::vector<nb::object> decode(SharedLmCoder& self, const std::vector<int64_t>& streams,
                               const std::vector<nb::bytes>& data,
                               const std::vector<int64_t>& frames) {
  const Exclusive lock(self.busy);
  require(streams.size() == data.size(), "data: expected one payload per stream");
  require(streams.size() == frames.size(), "frames: expected one count per stream");
  std::vector<LmPayload> all;
  for (size_t i = 0; i < streams.size(); ++i) {
    require(frames[i] >= 0 && frames[i] <= kMaxSteps, "frames: expected 0..16777216");
    const auto* bytes = static_cast<const uint8_t*>(data[i].data());
    all.push_back({streams[i], frames[i], {bytes, bytes + data[i].size()}, {}, false});
  }
  {
    nb::gil_scoped_release release;
    self.coder.decode(all);
  }
  std::vector<nb::object> result;
  const size_t books = static_cast<size_t>(self.coder.n_q());
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

std::vector<NewArray<float, 3>> probabilities(SharedLmCoder& self,
                                              const std::vector<int64_t>& streams,
                                              const std::vector<Codes>& codes) {
  const Exclusive lock(self.busy);
  const std::vector<LmCodes> all = make_codes(self.coder, streams, codes);
  const size_t books = static_cast<size_t>(self.coder.n_q());
  const size_t entries = static_cast<size_t>(self.coder.model().entries());
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
    self.coder.probabilities(all, out);
  }
  return result;
}

void reset(SharedLmCoder& self, const std::vector<int64_t>& streams) {
  const Exclusive lock(self.busy);
  self.coder.reset(streams);
}

}  // namespace

void bind_language_model(nb::module_& m) {
  using Model = std::shared_ptr<LanguageModel>;
  nb::class_<LanguageModel> model(
      m, "LanguageModel",
      "A Transformer over the codes of the steps before; immutable once a coder uses it.");
  model
      .def(
          "__init__",
          [](LanguageModel* self, int64_t dim, int64_t heads, int64_t past, int64_t entries,
             const Row& scale, const Row& offset) {
            new (self) LanguageModel(dim, heads, past, entries, make_norm(scale, offset));
          },
          "dim"_a, "heads"_a, "past"_a, "entries"_a, "scale"_a, "offset"_a)
      .def("seal", &LanguageModel::seal)
      .def_prop_ro("dim", &LanguageModel::dim)
      .def_prop_ro("past", &LanguageModel::past)
      .def_prop_ro("entries", &LanguageModel::entries)
      .def_prop_ro("n_codebooks", [](const LanguageModel& self) { return self.books().size(); });
  bind_parts<float>(model);
  bind_parts<uint16_t>(model);
  nb::class_<SharedLmCoder>(
      m, "LmCoder",
      "A batch of streams of codes, coded with a language model's probabilities. A stream's "
      "context "
      "goes on from call to call until it is reset, which it must be after damaged data.")
      .def(
          "__init__",
          [](SharedLmCoder* self, const Model& lm, int64_t n_q, int64_t batch) {
            lm->seal();
            new (self) SharedLmCoder(lm, n_q, batch);
          },
          "lm"_a, "n_q"_a, "batch"_a)
      .def("encode", encode, "streams"_a, "codes"_a.noconvert())
      .def("decode", decode, "streams"_a, "data"_a, "frames"_a)
      .def("probabilities", probabilities, "streams"_a, "codes"_a.noconvert())
      .def("reset", reset, "streams"_a);
}

}  // namespace encodec_fast
