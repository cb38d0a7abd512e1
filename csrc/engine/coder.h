// Audio to codes and back: a graph, the codebooks and the state of a batch of streams.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "engine/stream.h"

namespace encodec_fast {

class Encoder {
 public:
  // Throws std::invalid_argument if the graph's output is not as wide as a codebook entry.
  Encoder(std::shared_ptr<const Graph> graph, std::shared_ptr<const Codebooks> books, int64_t lanes,
          Start start);

  // audio[l]: planar [channels][blocks[l].rows], divided by scales[l] on the way in. Afterwards
  // codes() holds [n_q][sum of frames], lanes side by side.
  void run(const std::vector<const float*>& audio, const std::vector<float>& scales,
           const std::vector<Block>& blocks, int64_t n_q);

  const std::vector<uint16_t>& codes() const { return codes_; }
  const std::vector<int64_t>& frames() const { return stream_.output_rows(); }
  int64_t channels() const { return graph_->in_channels(); }
  Stream& stream() { return stream_; }
  const Graph& graph() const { return *graph_; }
  void profile(bool on);
  const Timing& codebooks() const { return search_; }  // since profile()

 private:
  std::shared_ptr<const Graph> graph_;
  std::shared_ptr<const Codebooks> books_;
  Stream stream_;
  Timing search_;
  std::vector<float> latent_;
  std::vector<uint16_t> codes_;
};

class Decoder {
 public:
  // Throws std::invalid_argument if the graph's input is not as wide as a codebook entry.
  Decoder(std::shared_ptr<const Graph> graph, std::shared_ptr<const Codebooks> books, int64_t lanes,
          Start start);

  // codes[l]: [n_q][blocks[l].rows], each below the codebook size (checked). Afterwards audio()
  // holds per lane planar [channels][samples] multiplied by scales[l], lanes one after the other.
  void run(const std::vector<const uint16_t*>& codes, const std::vector<float>& scales,
           const std::vector<Block>& blocks, int64_t n_q);

  const std::vector<float>& audio() const { return audio_; }
  const std::vector<int64_t>& samples() const { return stream_.output_rows(); }
  int64_t channels() const { return graph_->out_channels(); }
  Stream& stream() { return stream_; }
  const Graph& graph() const { return *graph_; }
  void profile(bool on);
  const Timing& codebooks() const { return lookup_; }  // since profile(); no products

 private:
  std::shared_ptr<const Graph> graph_;
  std::shared_ptr<const Codebooks> books_;
  Stream stream_;
  Timing lookup_;
  std::vector<uint16_t> codes_;
  std::vector<float> audio_;
};

// A graph alone, for callers that search codebooks themselves.
class Network {
 public:
  Network(std::shared_ptr<const Graph> graph, int64_t lanes);

  // in[l]: planar [in_channels][blocks[l].rows]. Afterwards out() holds per lane planar
  // [out_channels][rows], lanes one after the other.
  void run(const std::vector<const float*>& in, const std::vector<Block>& blocks);

  const std::vector<float>& out() const { return out_; }
  const std::vector<int64_t>& rows() const { return stream_.output_rows(); }
  Stream& stream() { return stream_; }
  const Graph& graph() const { return *graph_; }

 private:
  std::shared_ptr<const Graph> graph_;
  Stream stream_;
  std::vector<float> out_;
};

// The level by which normalising models scale a segment: the root mean square over time of the
// channels' mean, plus 1e-8. audio: planar [channels][samples], samples >= 1.
float segment_scale(const float* audio, int64_t channels, int64_t samples);

}  // namespace encodec_fast
