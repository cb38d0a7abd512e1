// The 8-bit forms of all codebooks that the first pass of the search reads (kernels/shortlist.h).
#pragma once

#include <cstdint>
#include <vector>

#include "engine/memory.h"
#include "kernels/rvq.h"

namespace encodec_fast {

class Shortlists {
 public:
  Shortlists() = default;
  // entries [n_q][size][dim].
  Shortlists(const float* entries, int64_t n_q, int64_t size, int64_t dim);

  // [n_q]; nullptr for codebooks whose sizes or values the first pass does not serve.
  const RvqShortlist* get() const { return books_.empty() ? nullptr : books_.data(); }

 private:
  void add(const float* entries, int64_t size, int64_t dim, int8_t* bytes, ShortlistPanel* panels);

  std::vector<RvqShortlist> books_;
  Memory bytes_, panels_;
};

}  // namespace encodec_fast
