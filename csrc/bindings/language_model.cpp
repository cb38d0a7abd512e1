// The entropy language model and its coder.
#include "engine/language_model.h"

#include <nanobind/stl/optional.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/vector.h>

#include "bindings/arrays.h"
#include "bindings/lm_coder.h"
#include "engine/lm_coder.h"

namespace encodec_fast {
namespace {

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
  bind_lm_coder<LmCoder, Model>(m, [](const Model& lm) { lm->seal(); });
}

}  // namespace encodec_fast
