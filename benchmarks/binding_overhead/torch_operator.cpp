// multiply_add as a torch custom operator. torch releases the GIL around it by itself.
#include <ATen/ATen.h>
#include <torch/library.h>

#include "multiply_add.h"

namespace {

void require_vector(const at::Tensor& x) {
  TORCH_CHECK_TYPE(x.dim() == 1 && x.scalar_type() == at::kFloat && x.is_contiguous(),
                   "expected a contiguous float32 tensor of one dimension");
}

at::Tensor multiply_add(const at::Tensor& a, const at::Tensor& b, const at::Tensor& c,
                        const at::Tensor& d) {
  require_vector(a);
  require_vector(b);
  require_vector(c);
  require_vector(d);
  binding_overhead::require_equal_lengths(a.numel(), b.numel(), c.numel(), d.numel());
  at::Tensor result = at::empty_like(a);
  binding_overhead::multiply_add(a.const_data_ptr<float>(), b.const_data_ptr<float>(),
                                 c.const_data_ptr<float>(), d.const_data_ptr<float>(),
                                 result.mutable_data_ptr<float>(), a.numel());
  return result;
}

}  // namespace

TORCH_LIBRARY(binding_overhead, m) {
  m.def("multiply_add(Tensor a, Tensor b, Tensor c, Tensor d) -> Tensor");
}

TORCH_LIBRARY_IMPL(binding_overhead, CPU, m) { m.impl("multiply_add", &multiply_add); }
