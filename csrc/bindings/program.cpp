// Graphs and codebooks.
#include "engine/program.h"

#include <nanobind/stl/optional.h>
#include <nanobind/stl/shared_ptr.h>

#include "bindings/arrays.h"
#include "dispatch.h"
#include "engine/float_control.h"
#include "engine/stream.h"

namespace encodec_fast {
namespace {

Norm make_norm(const std::optional<Array<float, 1>>& scale,
               const std::optional<Array<float, 1>>& offset, float eps) {
  Norm norm;
  if (scale) norm.scale.assign(scale->data(), scale->data() + scale->size());
  if (offset) norm.offset.assign(offset->data(), offset->data() + offset->size());
  norm.eps = eps;
  return norm;
}

// Weights of type T: float, or bfloat16 as uint16.
template <typename T>
int add_conv(Graph& graph, int input, int add, bool elu, int64_t kernel, int64_t stride,
             int64_t pad_left, int64_t pad_right, bool reflect, const Array<T, 2>& weight,
             const Array<float, 1>& bias, const std::optional<Array<float, 1>>& scale,
             const std::optional<Array<float, 1>>& offset, float eps) {
  require(kernel >= 1 && rows_of(weight) % kernel == 0,
          "weight: rows must be kernel * input channels");
  require(bias.size() == weight.shape(1), "bias: expected one value per output channel");
  Op op;
  op.kind = OpKind::kConv;
  op.input = input;
  op.add = add;
  op.elu = elu;
  op.kernel = kernel;
  op.stride = stride;
  op.pad_left = pad_left;
  op.pad_right = pad_right;
  op.reflect = reflect;
  op.in_channels = rows_of(weight) / kernel;
  op.out_channels = columns_of(weight);
  op.weight = pack_matrix(weight.data(), rows_of(weight), columns_of(weight), bias.data());
  op.norm = make_norm(scale, offset, eps);
  return graph.append(std::move(op));
}

template <typename T>
int add_conv_transpose(Graph& graph, int input, bool elu, int64_t stride, int64_t trim_left,
                       const Array<T, 2>& weight, const Array<float, 1>& bias,
                       const std::optional<Array<float, 1>>& scale,
                       const std::optional<Array<float, 1>>& offset, float eps) {
  require(stride >= 1 && stride <= columns_of(weight) && rows_of(weight) % 2 == 0 &&
              columns_of(weight) % stride == 0,
          "weight: expected [2 * input channels, stride * output channels]");
  require(static_cast<int64_t>(bias.size()) * stride == columns_of(weight),
          "bias: expected one value per output channel");
  std::vector<float> repeated;
  for (int64_t j = 0; j < stride; ++j)
    repeated.insert(repeated.end(), bias.data(), bias.data() + bias.size());
  Op op;
  op.kind = OpKind::kConvTranspose;
  op.input = input;
  op.elu = elu;
  op.kernel = 2 * stride;
  op.stride = stride;
  op.trim_left = trim_left;
  op.in_channels = rows_of(weight) / 2;
  op.out_channels = static_cast<int64_t>(bias.size());
  op.weight = pack_matrix(weight.data(), rows_of(weight), columns_of(weight), repeated.data());
  op.norm = make_norm(scale, offset, eps);
  return graph.append(std::move(op));
}

template <typename T>
int add_lstm(Graph& graph, int input, int add, bool elu, const Array<T, 2>& weight,
             const Array<T, 2>& recurrent, const Array<float, 1>& bias) {
  const int64_t hidden = rows_of(recurrent);
  require(
      hidden >= 1 && columns_of(recurrent) == 4 * hidden && columns_of(weight) == 4 * hidden &&
          static_cast<int64_t>(bias.size()) == 4 * hidden,
      "lstm: expected weight [in, 4 * hidden], recurrent [hidden, 4 * hidden], bias [4 * hidden]");
  Op op;
  op.kind = OpKind::kLstm;
  op.input = input;
  op.add = add;
  op.elu = elu;
  op.in_channels = rows_of(weight);
  op.out_channels = hidden;
  op.weight = pack_matrix(weight.data(), rows_of(weight), columns_of(weight), bias.data());
  op.recurrent = pack_matrix(recurrent.data(), hidden, 4 * hidden, nullptr);
  return graph.append(std::move(op));
}

// Weights are never converted: where another argument needs it (an eps that float32 has not), the
// first overload would else take the bits of bfloat16 for integers.
template <typename T>
void bind_operations(nb::class_<Graph>& graph) {
  graph
      .def("conv", add_conv<T>, "input"_a, "add"_a, "elu"_a, "kernel"_a, "stride"_a, "pad_left"_a,
           "pad_right"_a, "reflect"_a, "weight"_a.noconvert(), "bias"_a, "norm_scale"_a.none(),
           "norm_offset"_a.none(), "eps"_a)
      .def("conv_transpose", add_conv_transpose<T>, "input"_a, "elu"_a, "stride"_a, "trim_left"_a,
           "weight"_a.noconvert(), "bias"_a, "norm_scale"_a.none(), "norm_offset"_a.none(), "eps"_a)
      .def("lstm", add_lstm<T>, "input"_a, "add"_a, "elu"_a, "weight"_a.noconvert(),
           "recurrent"_a.noconvert(), "bias"_a);
}

// latents [rows, dimension] to codes [n_q, rows].
NewArray<uint16_t, 2> rvq_encode(const Codebooks& books, const Array<float, 2>& latents,
                                 int64_t n_q) {
  require(columns_of(latents) == books.dim(), "latents: expected [rows, codebook dimension]");
  require(n_q >= 1 && n_q <= books.n_q(), "n_q: expected 1..the number of codebooks");
  const size_t rows = latents.shape(0);
  auto codes = new_array<uint16_t>(static_cast<size_t>(n_q), rows);
  {
    nb::gil_scoped_release release;
    const FloatControl control;
    std::vector<float> residual(latents.data(), latents.data() + latents.size());
    kernels().rvq_encode(books.view(), residual.data(), rows_of(latents), n_q, codes.data(),
                         rows_of(latents));
  }
  return codes;
}

// codes [n_q, rows] to latents [rows, dimension].
NewArray<float, 2> rvq_decode(const Codebooks& books, const Array<uint16_t, 2>& codes) {
  const int64_t n_q = static_cast<int64_t>(codes.shape(0));
  const int64_t rows = static_cast<int64_t>(codes.shape(1));
  require(n_q >= 1 && n_q <= books.n_q(), "codes: expected [1..the number of codebooks, rows]");
  const std::vector<uint16_t> checked(codes.data(), codes.data() + codes.size());
  for (const uint16_t code : checked)
    require(code < books.size(), "codes: expected values below the codebook's size");
  auto latents = new_array<float>(static_cast<size_t>(rows), static_cast<size_t>(books.dim()));
  {
    nb::gil_scoped_release release;
    const FloatControl control;
    kernels().rvq_decode(books.view(), checked.data(), rows, rows, n_q, latents.data());
  }
  return latents;
}

}  // namespace

void bind_program(nb::module_& m) {
  nb::class_<Graph> graph(
      m, "Graph",
      "A checked list of operations; value 0 is the input, each method returns its output value.");
  graph.def(nb::init<int64_t>(), "in_channels"_a)
      .def("seal", &Graph::seal)
      .def(
          "piece_bytes",
          [](const Graph& self, int64_t rows) {
            return Stream(self, 1, Start::kExact).piece_bytes(rows);
          },
          "rows"_a)
      .def_prop_ro("in_channels", &Graph::in_channels)
      .def_prop_ro("out_channels", &Graph::out_channels)
      .def_prop_ro("causal", &Graph::causal)
      .def_prop_ro("streams", &Graph::streams)
      .def_prop_ro("delay", &Graph::delay)
      .def_prop_ro("down", &Graph::down)
      .def_prop_ro("up", &Graph::up)
      .def_prop_ro("start_rows", &Graph::start_rows);
  bind_operations<float>(graph);
  bind_operations<uint16_t>(graph);
  nb::class_<Codebooks>(m, "Codebooks", "All codebooks of a model, [n_q, size, dimension].")
      .def(
          "__init__",
          [](Codebooks* self, const Array<float, 3>& entries) {
            new (self) Codebooks(entries.data(), static_cast<int64_t>(entries.shape(0)),
                                 static_cast<int64_t>(entries.shape(1)),
                                 static_cast<int64_t>(entries.shape(2)));
          },
          "entries"_a)
      .def("encode", rvq_encode, "latents"_a, "n_q"_a)
      .def("decode", rvq_decode, "codes"_a)
      .def_prop_ro("n_q", &Codebooks::n_q)
      .def_prop_ro("size", &Codebooks::size)
      .def_prop_ro("dimension", &Codebooks::dim);
}

}  // namespace encodec_fast
