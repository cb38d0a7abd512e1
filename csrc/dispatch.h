// The instruction set is chosen once per process; the engine calls kernels through this table.
#pragma once

#include <string>
#include <vector>

#include "kernels/activations.h"
#include "kernels/attention.h"
#include "kernels/cdf.h"
#include "kernels/embedding.h"
#include "kernels/gemm.h"
#include "kernels/norm.h"
#include "kernels/rvq.h"
#include "kernels/softmax.h"

namespace encodec_fast {

struct Kernels {
  void (*gemm)(const GemmArgs&) noexcept;
  void (*activate)(const float* x, const float* add, float* out, float* elu, int64_t n) noexcept;
  void (*lstm_cell)(const float* gates, float* cell, float* out, int64_t hidden) noexcept;
  void (*rvq_encode)(const RvqCodebooks&, float* residual, int64_t rows, int64_t n_q,
                     uint16_t* codes, int64_t code_stride) noexcept;
  void (*rvq_decode)(const RvqCodebooks&, const uint16_t* codes, int64_t code_stride, int64_t rows,
                     int64_t n_q, float* latent) noexcept;
  float (*sum)(const float* x, int64_t n) noexcept;
  float (*sum_squares)(const float* x, int64_t n, float mean) noexcept;
  void (*normalize)(const NormTerm& term, const NormTerm& add, int64_t rows, int64_t channels,
                    float* out, float* elu) noexcept;
  Interval (*cdf_interval)(const float* p, int64_t n, int64_t symbol) noexcept;
  int64_t (*cdf_find)(const float* p, int64_t n, uint32_t target, Interval* interval) noexcept;
  bool (*cdf_starts)(const float* p, int64_t n, uint32_t* starts) noexcept;
  bool (*cdf_reference)(const float* p, int64_t n, int64_t* cdf) noexcept;
  void (*layer_norm)(const float* x, const float* scale, const float* offset, float eps,
                     int64_t rows, int64_t channels, float* out) noexcept;
  void (*gelu)(float* x, int64_t n) noexcept;
  void (*softmax)(float* x, int64_t rows, int64_t n) noexcept;
  void (*remember)(const AttentionArgs&) noexcept;
  void (*attend)(const AttentionArgs&) noexcept;
  void (*embed)(const Embedding* tables, int64_t count, const uint32_t* indices, int64_t rows,
                int64_t dim, float* out) noexcept;
  void (*add_positions)(const double* rates, int64_t half, int64_t first, int64_t rows,
                        float* x) noexcept;
};

struct Isa {
  const char* name;
  const Kernels* kernels;
};

// The best level this CPU has, or the one named by ENCODEC_FAST_ISA (portable, avx2, avx512,
// avx512vnni).
// Throws std::invalid_argument for an unknown name and for a level that this CPU or build lacks.
const Isa& isa();

// The levels that this CPU and build have, plainest first.
std::vector<std::string> supported_isas();

inline const Kernels& kernels() { return *isa().kernels; }

}  // namespace encodec_fast
