// multiply_add through nanobind, with the array types that csrc/bindings.cpp uses.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <algorithm>

#include "multiply_add.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace {

using Array = nb::ndarray<const float, nb::numpy, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using NewArray = nb::ndarray<float, nb::numpy, nb::ndim<1>>;

NewArray multiply_add(const Array& a, const Array& b, const Array& c, const Array& d) {
  const auto size = static_cast<int64_t>(a.size());
  binding_overhead::require_equal_lengths(size, static_cast<int64_t>(b.size()),
                                          static_cast<int64_t>(c.size()),
                                          static_cast<int64_t>(d.size()));
  float* out = new float[std::max<size_t>(a.size(), 1)];
  nb::capsule owner(out, [](void* p) noexcept { delete[] static_cast<float*>(p); });
  {
    nb::gil_scoped_release release;
    binding_overhead::multiply_add(a.data(), b.data(), c.data(), d.data(), out, size);
  }
  return NewArray(out, {a.size()}, owner);
}

}  // namespace

NB_MODULE(nanobind_module, m) {
  m.def("multiply_add", &multiply_add, "a"_a.noconvert(), "b"_a.noconvert(), "c"_a.noconvert(),
        "d"_a.noconvert());
}
