// Runs small models through the engine and prints one hash of all codes and samples: equal lines
// from two builds or instruction sets mean equal bits. Needs no Python, so that it runs where only
// a cross-compiler and an emulator exist (tests/native/cross.sh).

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <exception>
#include <memory>
#include <vector>

#include "dispatch.h"
#include "engine/coder.h"
#include "engine/lm_coder.h"

using namespace encodec_fast;

namespace {

// The same numbers on every machine: integers, and floats made of them without rounding.
uint64_t random_state = 0x9e3779b97f4a7c15u;

uint64_t random_bits() {
  random_state ^= random_state << 13;
  random_state ^= random_state >> 7;
  random_state ^= random_state << 17;
  return random_state;
}

float random_value() { return static_cast<float>(random_bits() >> 40) * 0x1p-23f - 1.0f; }

// About 1 / sqrt(fan_in), so that signals neither die nor grow.
std::vector<float> random_values(int64_t n, int64_t fan_in) {
  float scale = 2.0f;
  for (; fan_in > 1; fan_in /= 4) scale /= 2;
  std::vector<float> values(static_cast<size_t>(n));
  for (float& v : values) v = random_value() * scale;
  return values;
}

enum class Kind { kCausal, kMirrored, kSegments, kAhead };

struct Shape {
  const char* name;
  Kind kind;
  int64_t channels, narrow, wide, kernel, stride, dimension, n_q, entries, lanes;
  bool bfloat16 = false;
  float level = 1.0f;  // of the audio; 0x1p127: it overflows on the way to the codes
};

struct Builder {
  Builder(int64_t channels, const Shape& s)
      : graph(std::make_shared<Graph>(channels)), kind(s.kind), bfloat16(s.bfloat16) {}

  Matrix matrix(int64_t rows, int64_t columns, const float* bias) const {
    const std::vector<float> weight = random_values(rows * columns, rows);
    if (!bfloat16) return pack_matrix(weight.data(), rows, columns, bias);
    std::vector<uint16_t> upper(weight.size());
    for (size_t i = 0; i < upper.size(); ++i) {
      uint32_t bits;
      std::memcpy(&bits, &weight[i], sizeof bits);
      upper[i] = static_cast<uint16_t>(bits >> 16);
    }
    return pack_matrix(upper.data(), rows, columns, bias);
  }

  Op op(OpKind op_kind, int input, int64_t rows, int64_t columns, int64_t copies = 1) const {
    Op result;
    result.kind = op_kind;
    result.input = input;
    result.in_channels = graph->channels(input);
    result.out_channels = columns / copies;
    std::vector<float> bias = random_values(result.out_channels, 64);
    for (int64_t i = result.out_channels; i < columns; ++i)
      bias.push_back(bias[static_cast<size_t>(i - result.out_channels)]);
    result.weight = matrix(rows, columns, bias.data());
    if (kind == Kind::kSegments && op_kind != OpKind::kLstm) {
      result.norm.scale = random_values(result.out_channels, 1);
      result.norm.offset = random_values(result.out_channels, 16);
      result.norm.eps = 0x1p-17f;
    }
    return result;
  }

  int conv(int input, int64_t out, int64_t kernel, int64_t stride, bool elu, int add = -1) {
    Op conv = op(OpKind::kConv, input, kernel * graph->channels(input), out);
    conv.kernel = kernel;
    conv.stride = stride;
    conv.pad_right = both_sides() ? (kernel - stride) / 2 : 0;
    conv.pad_left = kernel - stride - conv.pad_right;
    conv.reflect = kind != Kind::kCausal;
    conv.elu = elu;
    conv.add = add;
    return graph->append(std::move(conv));
  }

  int up(int input, int64_t out, int64_t stride) {
    Op up = op(OpKind::kConvTranspose, input, 2 * graph->channels(input), stride * out, stride);
    up.kernel = 2 * stride;
    up.stride = stride;
    up.trim_left = both_sides() ? stride - stride / 2 : 0;
    up.elu = true;
    return graph->append(std::move(up));
  }

  int lstm(int input, int add) {
    const int64_t hidden = graph->channels(input);
    Op lstm = op(OpKind::kLstm, input, hidden, 4 * hidden);
    lstm.out_channels = hidden;
    lstm.recurrent = matrix(hidden, 4 * hidden, nullptr);
    lstm.add = add;
    return graph->append(std::move(lstm));
  }

  int residual(int input) {
    const int64_t channels = graph->channels(input);
    const int inner = conv(input, std::max<int64_t>(channels / 2, 1), 3, 1, true);
    return conv(inner, channels, 1, 1, true, input);
  }

  bool both_sides() const { return kind == Kind::kSegments || kind == Kind::kAhead; }

  std::shared_ptr<Graph> graph;
  Kind kind;
  bool bfloat16;
};

struct Model {
  explicit Model(const Shape& s) {
    Builder encode(s.channels, s), decode(s.dimension, s);
    int v = encode.residual(encode.conv(0, s.narrow, s.kernel, 1, false));
    v = encode.residual(encode.conv(v, s.wide, 4, 2, true));
    v = encode.conv(v, s.wide, 2 * s.stride, s.stride, true);
    v = encode.lstm(encode.lstm(v, -1), v);
    encode.conv(v, s.dimension, 3, 1, true);
    v = decode.conv(0, s.wide, 3, 1, false);
    v = decode.residual(decode.up(decode.lstm(v, v), s.wide, s.stride));
    v = decode.residual(decode.up(v, s.narrow, 2));
    decode.conv(v, s.channels, s.kernel, 1, true);
    encode.graph->seal();
    decode.graph->seal();
    encoder = encode.graph;
    decoder = decode.graph;
    std::vector<float> entries = random_values(s.n_q * s.entries * s.dimension, 4);
    // The last entry equals the first one: a tie whenever they are the best.
    std::copy_n(entries.begin(), s.dimension, entries.begin() + (s.entries - 1) * s.dimension);
    books = std::make_shared<Codebooks>(entries.data(), s.n_q, s.entries, s.dimension);
  }
  std::shared_ptr<const Graph> encoder, decoder;
  std::shared_ptr<const Codebooks> books;
};

struct Hash {  // FNV-1a, 64 bit, over the bytes of little-endian machines
  uint64_t state = 0xcbf29ce484222325u;
  template <typename T>
  void add(const std::vector<T>& values) {
    const auto* bytes = reinterpret_cast<const unsigned char*>(values.data());
    for (size_t i = 0; i < values.size() * sizeof(T); ++i)
      state = (state ^ bytes[i]) * 0x100000001b3u;
  }
};

// Every fourth sample is so quiet that the first layers compute with denormal numbers.
void fill(std::vector<float>& samples, const Shape& s) {
  for (size_t i = 0; i < samples.size(); ++i)
    samples[i] = random_value() * s.level * (i % 4 ? 1.0f : 0x1p-130f);
}
void fill(std::vector<uint16_t>& codes, const Shape& s) {
  for (uint16_t& code : codes)
    code = static_cast<uint16_t>(random_bits() % static_cast<uint64_t>(s.entries));
}
const std::vector<uint16_t>& result(const Encoder& coder) { return coder.codes(); }
const std::vector<float>& result(const Decoder& coder) { return coder.audio(); }

// Blocks of several sizes, lanes that rest and lanes that end and start anew.
template <typename T, typename Coder>
void stream(Coder&& coder, const Graph& graph, const Shape& s, int64_t height, bool exact,
            Hash& hash) {
  const size_t lanes = static_cast<size_t>(s.lanes);
  std::vector<bool> started(lanes, false);
  for (const int64_t frames : {9, 1, 3, 1, 16, 2}) {
    std::vector<std::vector<T>> rows(lanes);
    std::vector<const T*> in;
    std::vector<float> scales;
    std::vector<Block> blocks;
    for (size_t l = 0; l < lanes; ++l) {
      Block b = {frames * graph.down(), graph.streams() ? random_bits() % 4 == 0 : true};
      if (random_bits() % 4 == 0) b = {};
      if (b.rows > 0 && exact && !started[l]) b.rows = std::max(b.rows, graph.start_rows());
      if (b.last && b.rows > 3) b.rows -= 3;
      if (graph.delay() > 0 && graph.streams() && started[l] && random_bits() % 4 == 0)
        b = {0, true};
      started[l] = (started[l] || b.rows > 0) && !b.last;
      rows[l].resize(static_cast<size_t>(b.rows * height));
      fill(rows[l], s);
      in.push_back(rows[l].data());
      scales.push_back(1.0f + 0.25f * static_cast<float>(l));
      blocks.push_back(b);
    }
    coder.run(in, scales, blocks, s.n_q);
    hash.add(result(coder));
  }
}

void run(const Shape& s, Start start, std::vector<uint64_t>& hashes) {
  const Model m(s);
  Hash hash;
  const bool exact = start == Start::kExact;
  stream<float>(Encoder(m.encoder, m.books, s.lanes, start), *m.encoder, s, s.channels, exact,
                hash);
  stream<uint16_t>(Decoder(m.decoder, m.books, s.lanes, start), *m.decoder, s, s.n_q, exact, hash);
  std::printf("%-36s %016llx\n", s.name, static_cast<unsigned long long>(hash.state));
  hashes.push_back(hash.state);
}

struct LmShape {
  const char* name;
  int64_t dim, heads, layers, past, entries, books, width;
  bool bfloat16;
};

std::shared_ptr<const LanguageModel> language_model(const LmShape& s) {
  const Builder b(1, {"", Kind::kCausal, 1, 0, 0, 0, 0, 0, 0, 0, 1, s.bfloat16});
  const auto matrix = [&](int64_t rows, int64_t columns) {
    return b.matrix(rows, columns, random_values(columns, 16).data());
  };
  const auto norm = [&] { return LayerNorm{random_values(s.dim, 1), random_values(s.dim, 4)}; };
  auto model = std::make_shared<LanguageModel>(s.dim, s.heads, s.past, s.entries, norm());
  for (int64_t i = 0; i < s.layers; ++i) {
    LmLayer layer;
    layer.qkv = matrix(s.dim, 3 * s.dim);
    layer.out = matrix(s.dim, s.dim);
    layer.up = matrix(s.dim, s.width);
    layer.down = matrix(s.width, s.dim);
    layer.norm1 = norm();
    layer.norm2 = norm();
    model->append(std::move(layer));
  }
  for (int64_t i = 0; i < s.books; ++i) {
    LmBook book;
    book.embedding = random_values((s.entries + 1) * s.dim, 1);
    book.head = matrix(s.dim, s.entries);
    model->append(std::move(book));
  }
  model->seal();
  return model;
}

// Bytes of several streams, and what decoding gives of them and of damaged ones.
void run(const LmShape& s, std::vector<uint64_t>& hashes) {
  constexpr int64_t kLanes = 3;
  LmCoder writer(language_model(s), s.books, kLanes);
  Hash hash;
  for (const int64_t steps : {40, 1, 90}) {
    std::vector<LmCodes> streams;
    for (int64_t lane = 0; lane < kLanes; ++lane) {
      LmCodes codes = {lane, steps + lane, {}};
      for (int64_t i = 0; i < codes.steps * s.books; ++i)
        codes.codes.push_back(
            static_cast<uint16_t>(random_bits() % static_cast<uint64_t>(s.entries)));
      streams.push_back(std::move(codes));
    }
    for (const std::vector<uint8_t>& bytes : writer.encode(streams)) hash.add(bytes);
  }
  std::vector<LmPayload> payloads(1);
  payloads[0].steps = 20;
  for (int i = 0; i < 400; ++i) payloads[0].data.push_back(static_cast<uint8_t>(random_bits()));
  writer.decode(payloads);
  hash.add(payloads[0].codes);
  std::printf("%-36s %016llx\n", s.name, static_cast<unsigned long long>(hash.state));
  hashes.push_back(hash.state);
}

const LmShape kLmShapes[] = {
    {"language model", 50, 2, 2, 37, 100, 3, 90, false},
    {"language model, bfloat16, one head", 18, 1, 1, 9, 33, 2, 7, true},
};

// Behind the others, so that those keep their numbers.
const Shape kAheadShapes[] = {
    {"looks ahead, mirrored, three lanes", Kind::kAhead, 1, 16, 24, 7, 5, 16, 2, 64, 3},
    {"looks ahead, stereo, bfloat16", Kind::kAhead, 2, 7, 33, 8, 4, 9, 3, 33, 2, true},
};

const Shape kShapes[] = {
    {"mono, zero padding, odd widths", Kind::kCausal, 1, 7, 33, 7, 3, 5, 3, 33, 1},
    {"mono, mirrored, three lanes", Kind::kMirrored, 1, 16, 24, 7, 5, 16, 2, 16, 3},
    {"stereo, wide, 13 lanes", Kind::kCausal, 2, 64, 130, 5, 2, 8, 1, 2, 13},
    {"mono, mirrored, long kernel", Kind::kMirrored, 1, 33, 64, 60, 4, 24, 2, 100, 2},
    {"mono, large codebooks", Kind::kCausal, 1, 7, 16, 7, 2, 128, 4, 1024, 2},
    {"stereo segments", Kind::kSegments, 2, 16, 33, 7, 5, 16, 3, 64, 2},
    {"mono segments, odd widths", Kind::kSegments, 1, 7, 24, 9, 4, 5, 2, 17, 3},
    {"bfloat16 weights", Kind::kCausal, 1, 16, 33, 7, 3, 12, 2, 40, 9, true},
    {"stereo, bfloat16 weights, one lane", Kind::kMirrored, 2, 7, 64, 7, 4, 9, 2, 16, 1, true},
    {"samples that overflow", Kind::kCausal, 1, 16, 24, 7, 2, 8, 3, 33, 3, false, 0x1p127f},
    {"segments that overflow", Kind::kSegments, 1, 16, 24, 7, 2, 8, 3, 33, 2, false, 0x1p127f},
};

}  // namespace

int main() {
  try {
    std::vector<uint64_t> hashes;
    for (const Shape& s : kShapes) {
      run(s, Start::kExact, hashes);
      if (s.kind == Kind::kMirrored) run(s, Start::kLowLatency, hashes);
    }
    for (const LmShape& s : kLmShapes) run(s, hashes);
    for (const Shape& s : kAheadShapes) run(s, Start::kExact, hashes);
    Hash total;
    total.add(hashes);
    std::printf("%s %016llx\n", isa().name, static_cast<unsigned long long>(total.state));
    return 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "engine_hash: %s\n", error.what());
    return 1;
  }
}
