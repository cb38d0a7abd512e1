#include "cuda/staging.h"

#include <algorithm>

namespace encodec_fast::cuda {

int64_t longest(const std::vector<int64_t>& counts) {
  return counts.empty() ? 0 : *std::max_element(counts.begin(), counts.end());
}

void PlanarInput::take(const std::vector<const float*>& planar, const std::vector<float>& scales,
                       const std::vector<int64_t>& counts, int64_t channels, float* rows,
                       Queue& queue) {
  size_t bytes =
      Staging::room(scales.size() * sizeof(float)) + Staging::room(counts.size() * sizeof(Planar));
  for (const int64_t n : counts)
    bytes += Staging::room(static_cast<size_t>(n * channels) * sizeof(float));
  staging_.begin(bytes);
  const float* scale = staging_.add(scales.data(), scales.size());
  std::vector<Planar> parts;
  for (size_t l = 0; l < counts.size(); ++l) {
    const int64_t n = counts[l];
    float* from = staging_.add(planar[l], static_cast<size_t>(n * channels));
    parts.push_back({from, rows, scale + l, n});
    rows += n * channels;
  }
  const Planar* table = staging_.add(parts.data(), parts.size());
  staging_.upload(queue);
  take_planar(table, static_cast<int64_t>(parts.size()), longest(counts), channels, queue.stream());
}

void PlanarOutput::give(float* rows, const std::vector<float>& scales,
                        const std::vector<int64_t>& counts, int64_t channels, Queue& queue) {
  const size_t bytes = static_cast<size_t>(total(counts) * channels) * sizeof(float);
  planar_.reserve(bytes);
  result_.reserve(bytes);
  staging_.begin(Staging::room(scales.size() * sizeof(float)) +
                 Staging::room(counts.size() * sizeof(Planar)));
  const float* scale = staging_.add(scales.data(), scales.size());
  float* to = planar_.floats();
  std::vector<Planar> parts;
  for (size_t l = 0; l < counts.size(); ++l) {
    parts.push_back({to, rows, scale + l, counts[l]});
    to += counts[l] * channels;
    rows += counts[l] * channels;
  }
  const Planar* table = staging_.add(parts.data(), parts.size());
  staging_.upload(queue);
  give_planar(table, static_cast<int64_t>(parts.size()), longest(counts), channels, queue.stream());
  queue.download(result_.bytes(), planar_.bytes(), bytes);
  queue.finish();
}

}  // namespace encodec_fast::cuda
