#include "engine/shortlist.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstring>

#include "kernels/gemm.h"

namespace encodec_fast {
namespace {

// Not a number if one of the entry's numbers is not.
float peak_of(const float* entry, int64_t dim) {
  float peak = 0.0f;
  for (int64_t d = 0; d < dim && !std::isnan(peak); ++d) {
    const float x = std::abs(entry[d]);
    if (!(x <= peak)) peak = x;
  }
  return peak;
}

bool served(const float* entries, int64_t count, int64_t size, int64_t dim) {
  if (dim % kPanel != 0 || dim > kMostShortDim || size > kMostShortSize) return false;
  for (int64_t e = 0; e < count; ++e) {
    const float peak = peak_of(entries + e * dim, dim);
    if (peak != 0.0f && !(peak >= kLeastShort && peak <= kMostShort)) return false;
  }
  return true;
}

}  // namespace

Shortlists::Shortlists(const float* entries, int64_t n_q, int64_t size, int64_t dim) {
  if (!served(entries, n_q * size, size, dim)) return;
  const int64_t panels = (size + kPanel - 1) / kPanel;
  const size_t bytes = static_cast<size_t>(n_q * panels * dim * kPanel);
  bytes_ = allocate(bytes);
  std::memset(bytes_.get(), 0, bytes);
  panels_ = allocate(static_cast<size_t>(n_q * panels) * sizeof(ShortlistPanel));
  std::memset(panels_.get(), 0, static_cast<size_t>(n_q * panels) * sizeof(ShortlistPanel));
  for (int64_t q = 0; q < n_q; ++q) {
    add(entries + q * size * dim, size, dim,
        reinterpret_cast<int8_t*>(bytes_.get()) + q * panels * dim * kPanel,
        reinterpret_cast<ShortlistPanel*>(panels_.get()) + q * panels);
  }
}

void Shortlists::add(const float* entries, int64_t size, int64_t dim, int8_t* bytes,
                     ShortlistPanel* panels) {
  // Several times what a chain of dim multiply-adds may lose, relative to the sum of magnitudes.
  const double rounding = 4.0 * static_cast<double>(dim + 8) * std::ldexp(1.0, -24);
  double most = 0.0;
  for (int64_t e = 0; e < size; ++e) {
    const float* entry = entries + e * dim;
    ShortlistPanel& panel = panels[e / kPanel];
    const int64_t column = e % kPanel;
    int8_t* to = bytes + e / kPanel * dim * kPanel + column * 4;
    const float step = peak_of(entry, dim) / 127.0f;
    int32_t sum = 0;
    double norm = 0.0;
    double rest = 0.0;
    for (int64_t d = 0; d < dim; ++d) {
      const double p = step == 0.0f ? 0.0 : std::round(static_cast<double>(entry[d]) / step);
      const double x = entry[d] - p * step;
      to[d / 4 * 4 * kPanel + d % 4] = static_cast<int8_t>(p);
      sum += static_cast<int32_t>(p);
      norm += static_cast<double>(entry[d]) * entry[d];
      rest += x * x;
    }
    most = std::max(most, norm / 2.0);
    norm = std::sqrt(norm);
    panel.start[column] = -128 * sum;
    panel.step[column] = step;
    panel.norm[column] = static_cast<float>(kRoundedUp * norm);
    panel.error[column] = static_cast<float>(kRoundedUp * (std::sqrt(rest) + rounding * norm));
  }
  const float slack = static_cast<float>(kRoundedUp * 2.0 * rounding * most);
  books_.push_back({bytes, panels, slack});
}

}  // namespace encodec_fast
