// The kernel table of one instruction set; compiled once for each.
#include "dispatch.h"

namespace encodec_fast::EF_ISA {

extern const Kernels table;
const Kernels table = {gemm,       activate,      lstm_cell,  rvq_encode,   rvq_decode,
                       sum,        sum_squares,   normalize,  cdf_interval, cdf_find,
                       cdf_starts, cdf_reference, layer_norm, gelu,         softmax,
                       remember,   attend,        embed,      add_positions};

}  // namespace encodec_fast::EF_ISA
