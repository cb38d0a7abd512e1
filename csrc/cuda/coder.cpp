#include "cuda/coder.h"

#include <stdexcept>
#include <string>

#include "engine/require.h"

namespace encodec_fast::cuda {
namespace {

std::vector<int64_t> rows_of(const std::vector<Block>& blocks) {
  std::vector<int64_t> rows;
  rows.reserve(blocks.size());
  for (const Block& b : blocks) rows.push_back(b.rows);
  return rows;
}

void require_pair(int64_t width, const DeviceGraph& graph, const DeviceBooks& books) {
  const int64_t dim = books.view().dim;
  require(width == dim, "codebooks: expected dimension " + std::to_string(width) + ", found " +
                            std::to_string(dim));
  require(graph.device() == books.device(), "codebooks: are on another device than the graph");
}

}  // namespace

Encoder::Encoder(const std::shared_ptr<const DeviceGraph>& graph,
                 std::shared_ptr<const DeviceBooks> books, int64_t lanes, Start start)
    : books_(std::move(books)), queue_(graph->device()), executor_(graph, lanes, start, queue_) {
  require_pair(graph->graph().out_channels(), *graph, *books_);
}

void Encoder::run(const std::vector<const float*>& audio, const std::vector<float>& scales,
                  const std::vector<Block>& blocks, int64_t n_q) {
  require_in("n_q", n_q, 1, books_->n_q());
  queue_.begin();
  float* rows = executor_.input(blocks);
  input_.take(audio, scales, rows_of(blocks), channels(), rows, queue_);
  executor_.run();
  const int64_t count = total(frames());
  const Books& books = books_->view();
  const size_t bytes = static_cast<size_t>(n_q * count) * sizeof(uint16_t);
  codes_.reserve(bytes);
  result_.reserve(bytes);
  scratch_.reserve(static_cast<size_t>(rvq_scratch(books, count)));
  rvq_encode(books, executor_.result(), count, n_q, reinterpret_cast<uint16_t*>(codes_.bytes()),
             count, scratch_.floats(), books_->multiprocessors(), queue_.stream());
  queue_.download(result_.bytes(), codes_.bytes(), bytes);
  queue_.finish();
  executor_.finished();
}

Decoder::Decoder(const std::shared_ptr<const DeviceGraph>& graph,
                 std::shared_ptr<const DeviceBooks> books, int64_t lanes, Start start)
    : books_(std::move(books)), queue_(graph->device()), executor_(graph, lanes, start, queue_) {
  require_pair(graph->graph().in_channels(), *graph, *books_);
}

void Decoder::run(const std::vector<const uint16_t*>& codes, const std::vector<float>& scales,
                  const std::vector<Block>& blocks, int64_t n_q) {
  require_in("n_q", n_q, 1, books_->n_q());
  queue_.begin();
  const Books& books = books_->view();
  const std::vector<int64_t> counts = rows_of(blocks);
  // Checked in a copy: the caller's arrays may change while the interpreter lock is released.
  std::vector<uint16_t> checked;
  for (size_t l = 0; l < blocks.size(); ++l)
    checked.insert(checked.end(), codes[l], codes[l] + n_q * counts[l]);
  for (const uint16_t code : checked) {
    if (code < books.size) continue;
    throw std::invalid_argument("codes: expected values below " + std::to_string(books.size) +
                                ", found " + std::to_string(code));
  }
  float* latent = executor_.input(blocks);
  staging_.begin(Staging::room(checked.size() * sizeof(uint16_t)) + Staging::room(sizeof(int)) +
                 Staging::room(counts.size() * sizeof(Codes)));
  const int none = 0;
  int* bad = staging_.add(&none, 1);  // stays 0: checked above
  const uint16_t* from = staging_.add(checked.data(), checked.size());
  std::vector<Codes> parts;
  for (const int64_t n : counts) {
    parts.push_back({from, latent, n});
    from += n_q * n;
    latent += n * books.dim;
  }
  const Codes* table = staging_.add(parts.data(), parts.size());
  staging_.upload(queue_);
  rvq_decode(books, table, static_cast<int64_t>(parts.size()), longest(counts), n_q, bad,
             queue_.stream());
  executor_.run();
  output_.give(executor_.result(), scales, samples(), channels(), queue_);
  executor_.finished();
}

Network::Network(const std::shared_ptr<const DeviceGraph>& graph, int64_t lanes)
    : queue_(graph->device()), executor_(graph, lanes, Start::kExact, queue_) {}

void Network::run(const std::vector<const float*>& in, const std::vector<Block>& blocks) {
  queue_.begin();
  const std::vector<float> ones(blocks.size(), 1.0f);
  float* first = executor_.input(blocks);
  input_.take(in, ones, rows_of(blocks), graph().in_channels(), first, queue_);
  executor_.run();
  output_.give(executor_.result(), ones, rows(), graph().out_channels(), queue_);
  executor_.finished();
}

}  // namespace encodec_fast::cuda
