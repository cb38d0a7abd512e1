// The Python module `_core`. Argument checks that need to know the caller's words are in
// encodec_fast/_native.py; what is checked here keeps memory safe whatever arrives.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <atomic>
#include <stdexcept>

#include "dispatch.h"
#include "engine/coder.h"
#include "entropy/bitpack.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace encodec_fast {
namespace {

template <typename T, int N>
using Array = nb::ndarray<const T, nb::numpy, nb::ndim<N>, nb::c_contig, nb::device::cpu>;
template <typename T, int N>
using NewArray = nb::ndarray<T, nb::numpy, nb::ndim<N>>;

template <typename T>
NewArray<T, 2> new_array(size_t rows, size_t columns) {
  T* data = new T[std::max<size_t>(rows * columns, 1)];
  nb::capsule owner(data, [](void* p) noexcept { delete[] static_cast<T*>(p); });
  return NewArray<T, 2>(data, {rows, columns}, owner);
}

void require(bool condition, const char* message) {
  if (!condition) throw std::invalid_argument(message);
}

Norm make_norm(const std::optional<Array<float, 1>>& scale,
               const std::optional<Array<float, 1>>& offset, float eps) {
  Norm norm;
  if (scale) norm.scale.assign(scale->data(), scale->data() + scale->size());
  if (offset) norm.offset.assign(offset->data(), offset->data() + offset->size());
  norm.eps = eps;
  return norm;
}

int64_t rows_of(const Array<float, 2>& a) { return static_cast<int64_t>(a.shape(0)); }
int64_t columns_of(const Array<float, 2>& a) { return static_cast<int64_t>(a.shape(1)); }

int add_conv(Graph& graph, int input, int add, bool elu, int64_t kernel, int64_t stride,
             int64_t pad_left, int64_t pad_right, bool reflect, const Array<float, 2>& weight,
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

int add_conv_transpose(Graph& graph, int input, bool elu, int64_t stride, int64_t trim_left,
                       const Array<float, 2>& weight, const Array<float, 1>& bias,
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

int add_lstm(Graph& graph, int input, int add, bool elu, const Array<float, 2>& weight,
             const Array<float, 2>& recurrent, const Array<float, 1>& bias) {
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
  op.weight = pack_matrix(weight.data(), rows_of(weight), 4 * hidden, bias.data());
  op.recurrent = pack_matrix(recurrent.data(), hidden, 4 * hidden, nullptr);
  return graph.append(std::move(op));
}

// The state of a stream belongs to one thread at a time; the interpreter lock is released while it
// runs.
class Exclusive {
 public:
  explicit Exclusive(std::atomic<bool>& busy) : busy_(busy) {
    if (busy_.exchange(true)) throw std::invalid_argument("stream: in use by another thread");
  }
  ~Exclusive() { busy_ = false; }
  Exclusive(const Exclusive&) = delete;
  Exclusive& operator=(const Exclusive&) = delete;

 private:
  std::atomic<bool>& busy_;
};

template <typename Coder>
struct Shared {
  Shared(std::shared_ptr<const Graph> graph, std::shared_ptr<const Codebooks> books, int64_t lanes,
         bool low_latency)
      : coder(std::move(graph), std::move(books), lanes,
              low_latency ? Start::kLowLatency : Start::kExact) {}
  void reset() {
    const Exclusive lock(busy);
    coder.stream().reset();
  }
  Coder coder;
  std::atomic<bool> busy{false};
};

// Pointers and lengths of one array per stream; each must have `height` rows (any number if 0, but
// the same in all).
template <typename T>
std::vector<const T*> open_blocks(const std::vector<Array<T, 2>>& arrays,
                                  const std::vector<bool>& last, const std::vector<float>& scales,
                                  int64_t lanes, size_t height, std::vector<Block>& blocks) {
  require(static_cast<int64_t>(arrays.size()) == lanes && last.size() == arrays.size() &&
              scales.size() == arrays.size(),
          "blocks: expected one array, one last flag and one scale per stream of the batch");
  std::vector<const T*> data;
  for (size_t l = 0; l < arrays.size(); ++l) {
    require(arrays[l].shape(0) == height, "blocks: an array has the wrong number of rows");
    data.push_back(arrays[l].data());
    blocks.push_back({static_cast<int64_t>(arrays[l].shape(1)), last[l]});
  }
  return data;
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
  const std::vector<uint16_t>& codes = self.coder.codes();
  const size_t q_count = static_cast<size_t>(n_q);
  const size_t all = codes.size() / q_count;
  std::vector<NewArray<uint16_t, 2>> out;
  size_t first = 0;
  for (const int64_t frames : self.coder.frames()) {
    const size_t n = static_cast<size_t>(frames);
    auto array = new_array<uint16_t>(q_count, n);
    for (size_t q = 0; q < q_count; ++q)
      std::copy_n(codes.data() + q * all + first, n, array.data() + q * n);
    out.push_back(std::move(array));
    first += n;
  }
  return out;
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
  const size_t channels = static_cast<size_t>(self.coder.channels());
  const float* audio = self.coder.audio().data();
  std::vector<NewArray<float, 2>> out;
  for (const int64_t samples : self.coder.samples()) {
    auto array = new_array<float>(channels, static_cast<size_t>(samples));
    std::copy_n(audio, array.size(), array.data());
    audio += array.size();
    out.push_back(std::move(array));
  }
  return out;
}

nb::bytes to_bytes(const std::vector<uint8_t>& v) { return nb::bytes(v.data(), v.size()); }

NewArray<uint16_t, 1> unpack(BitUnpacker& self, const nb::bytes& data) {
  std::vector<uint16_t> values;
  self.push(static_cast<const uint8_t*>(data.data()), static_cast<int64_t>(data.size()), values);
  auto* kept = new std::vector<uint16_t>(std::move(values));
  nb::capsule owner(kept, [](void* p) noexcept { delete static_cast<std::vector<uint16_t>*>(p); });
  return NewArray<uint16_t, 1>(kept->data(), {kept->size()}, owner);
}

void bind_program(nb::module_& m) {
  nb::class_<Graph>(
      m, "Graph",
      "A checked list of operations; value 0 is the input, each method returns its output value.")
      .def(nb::init<int64_t>(), "in_channels"_a)
      .def("conv", add_conv, "input"_a, "add"_a, "elu"_a, "kernel"_a, "stride"_a, "pad_left"_a,
           "pad_right"_a, "reflect"_a, "weight"_a, "bias"_a, "norm_scale"_a.none(),
           "norm_offset"_a.none(), "eps"_a)
      .def("conv_transpose", add_conv_transpose, "input"_a, "elu"_a, "stride"_a, "trim_left"_a,
           "weight"_a, "bias"_a, "norm_scale"_a.none(), "norm_offset"_a.none(), "eps"_a)
      .def("lstm", add_lstm, "input"_a, "add"_a, "elu"_a, "weight"_a, "recurrent"_a, "bias"_a)
      .def("seal", &Graph::seal)
      .def_prop_ro("in_channels", &Graph::in_channels)
      .def_prop_ro("out_channels", &Graph::out_channels)
      .def_prop_ro("causal", &Graph::causal)
      .def_prop_ro("down", &Graph::down)
      .def_prop_ro("up", &Graph::up)
      .def_prop_ro("start_rows", &Graph::start_rows);
  nb::class_<Codebooks>(m, "Codebooks", "All codebooks of a model, [n_q, size, dimension].")
      .def(
          "__init__",
          [](Codebooks* self, const Array<float, 3>& entries) {
            new (self) Codebooks(entries.data(), static_cast<int64_t>(entries.shape(0)),
                                 static_cast<int64_t>(entries.shape(1)),
                                 static_cast<int64_t>(entries.shape(2)));
          },
          "entries"_a)
      .def_prop_ro("n_q", &Codebooks::n_q)
      .def_prop_ro("size", &Codebooks::size)
      .def_prop_ro("dimension", &Codebooks::dim);
}

void bind_streams(nb::module_& m) {
  using Graphs = std::shared_ptr<Graph>;
  using Books = std::shared_ptr<Codebooks>;
  nb::class_<Shared<Encoder>>(m, "Encoder", "A batch of streams from audio to codes.")
      .def(
          "__init__",
          [](Shared<Encoder>* self, Graphs graph, Books books, int64_t lanes, bool low_latency) {
            graph->seal();
            new (self) Shared<Encoder>(std::move(graph), std::move(books), lanes, low_latency);
          },
          "graph"_a, "codebooks"_a, "lanes"_a, "low_latency"_a)
      .def("run", encode, "audio"_a, "last"_a, "scales"_a, "n_q"_a)
      .def("reset", &Shared<Encoder>::reset);
  nb::class_<Shared<Decoder>>(m, "Decoder", "A batch of streams from codes to audio.")
      .def(
          "__init__",
          [](Shared<Decoder>* self, Graphs graph, Books books, int64_t lanes, bool low_latency) {
            graph->seal();
            new (self) Shared<Decoder>(std::move(graph), std::move(books), lanes, low_latency);
          },
          "graph"_a, "codebooks"_a, "lanes"_a, "low_latency"_a)
      .def("run", decode, "codes"_a, "last"_a, "scales"_a)
      .def("reset", &Shared<Decoder>::reset);
}

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

}  // namespace
}  // namespace encodec_fast

NB_MODULE(_core, m) {
  using namespace encodec_fast;
  m.doc() = "The native core of encodec_fast.";
  bind_program(m);
  bind_streams(m);
  bind_entropy(m);
  m.def(
      "isa", [] { return std::string(isa().name); },
      "The instruction set in use: portable or avx2.");
  m.def(
      "segment_scale",
      [](const Array<float, 2>& audio) {
        require(audio.shape(0) >= 1 && audio.shape(1) >= 1, "audio: must not be empty");
        return segment_scale(audio.data(), static_cast<int64_t>(audio.shape(0)),
                             static_cast<int64_t>(audio.shape(1)));
      },
      "audio"_a, "The level by which a segment is divided.");
}
