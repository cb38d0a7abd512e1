#include "engine/coder.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <numeric>
#include <stdexcept>
#include <string>

#include "dispatch.h"
#include "engine/float_control.h"

namespace encodec_fast {
namespace {

void require_width(int64_t found, int64_t dim) {
  if (found != dim) {
    throw std::invalid_argument("codebooks: expected dimension " + std::to_string(found) +
                                ", found " + std::to_string(dim));
  }
}

double since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

void require_codebooks(int64_t n_q, const Codebooks& books) {
  if (n_q < 1 || n_q > books.n_q()) {
    throw std::invalid_argument("n_q: expected 1.." + std::to_string(books.n_q()) + ", found " +
                                std::to_string(n_q));
  }
}

// Planar blocks, each value divided by its block's scale, to rows behind each other.
void take_planar(const std::vector<const float*>& planar, const std::vector<float>& scales,
                 const std::vector<Block>& blocks, int64_t channels, float* to) {
  for (size_t l = 0; l < blocks.size(); ++l) {
    const int64_t rows = blocks[l].rows;
    for (int64_t c = 0; c < channels; ++c) {
      for (int64_t t = 0; t < rows; ++t) to[t * channels + c] = planar[l][c * rows + t] / scales[l];
    }
    to += rows * channels;
  }
}

// The inverse; values are multiplied.
void give_planar(const float* from, const std::vector<float>& scales,
                 const std::vector<int64_t>& rows, int64_t channels, std::vector<float>& planar) {
  planar.resize(
      static_cast<size_t>(std::accumulate(rows.begin(), rows.end(), int64_t{0}) * channels));
  float* to = planar.data();
  for (size_t l = 0; l < rows.size(); ++l) {
    const int64_t n = rows[l];
    for (int64_t c = 0; c < channels; ++c) {
      for (int64_t t = 0; t < n; ++t) to[c * n + t] = from[t * channels + c] * scales[l];
    }
    from += n * channels;
    to += n * channels;
  }
}

}  // namespace

Encoder::Encoder(std::shared_ptr<const Graph> graph, std::shared_ptr<const Codebooks> books,
                 int64_t lanes, Start start)
    : graph_(std::move(graph)), books_(std::move(books)), stream_(*graph_, lanes, start) {
  require_width(graph_->out_channels(), books_->dim());
}

void Encoder::run(const std::vector<const float*>& audio, const std::vector<float>& scales,
                  const std::vector<Block>& blocks, int64_t n_q) {
  require_codebooks(n_q, *books_);
  const FloatControl control;
  take_planar(audio, scales, blocks, graph_->in_channels(), stream_.input(blocks));
  const float* out = stream_.run();
  const int64_t rows = std::accumulate(frames().begin(), frames().end(), int64_t{0});
  latent_.assign(out, out + rows * books_->dim());  // the search consumes its input
  codes_.resize(static_cast<size_t>(n_q * rows));
  const auto start = std::chrono::steady_clock::now();
  kernels().rvq_encode(books_->view(), latent_.data(), rows, n_q, codes_.data(), rows);
  search_.seconds += since(start);
  search_.macs += rows * n_q * books_->size() * books_->dim();
}

void Encoder::profile(bool on) {
  stream_.profile(on);
  search_ = {};
}

void Decoder::profile(bool on) {
  stream_.profile(on);
  lookup_ = {};
}

Decoder::Decoder(std::shared_ptr<const Graph> graph, std::shared_ptr<const Codebooks> books,
                 int64_t lanes, Start start)
    : graph_(std::move(graph)), books_(std::move(books)), stream_(*graph_, lanes, start) {
  require_width(graph_->in_channels(), books_->dim());
}

void Decoder::run(const std::vector<const uint16_t*>& codes, const std::vector<float>& scales,
                  const std::vector<Block>& blocks, int64_t n_q) {
  require_codebooks(n_q, *books_);
  // Checked in a copy: the caller's arrays may change while the interpreter lock is released.
  codes_.clear();
  for (size_t l = 0; l < blocks.size(); ++l) {
    codes_.insert(codes_.end(), codes[l], codes[l] + n_q * blocks[l].rows);
  }
  for (const uint16_t code : codes_) {
    if (code >= books_->size()) {
      throw std::invalid_argument("codes: expected values below " + std::to_string(books_->size()) +
                                  ", found " + std::to_string(code));
    }
  }
  const FloatControl control;
  float* in = stream_.input(blocks);
  const uint16_t* from = codes_.data();
  const auto start = std::chrono::steady_clock::now();
  for (const Block& block : blocks) {
    kernels().rvq_decode(books_->view(), from, block.rows, block.rows, n_q, in);
    from += n_q * block.rows;
    in += block.rows * books_->dim();
  }
  lookup_.seconds += since(start);
  const float* out = stream_.run();
  give_planar(out, scales, samples(), channels(), audio_);
}

Network::Network(std::shared_ptr<const Graph> graph, int64_t lanes)
    : graph_(std::move(graph)), stream_(*graph_, lanes, Start::kExact) {}

void Network::run(const std::vector<const float*>& in, const std::vector<Block>& blocks) {
  const FloatControl control;
  const std::vector<float> ones(blocks.size(), 1.0f);
  take_planar(in, ones, blocks, graph_->in_channels(), stream_.input(blocks));
  const float* out = stream_.run();
  give_planar(out, ones, rows(), graph_->out_channels(), out_);
}

float segment_scale(const float* audio, int64_t channels, int64_t samples) {
  const FloatControl control;
  std::vector<float> mono(audio, audio + samples);
  for (int64_t c = 1; c < channels; ++c) {
    for (int64_t t = 0; t < samples; ++t) mono[t] += audio[c * samples + t];
  }
  const float count = static_cast<float>(channels);
  for (float& v : mono) v /= count;
  double squares = 0.0;
  for (int64_t t = 0; t < samples; t += kReductionBlock)
    squares += kernels().sum_squares(&mono[t], std::min(samples - t, kReductionBlock), 0.0f);
  return std::sqrt(static_cast<float>(squares / static_cast<double>(samples))) + 1e-8f;
}

}  // namespace encodec_fast
