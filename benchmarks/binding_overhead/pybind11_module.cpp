// multiply_add through pybind11.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include "multiply_add.h"

namespace py = pybind11;
using namespace py::literals;

namespace {

using Array = py::array_t<float, py::array::c_style>;

py::array_t<float> multiply_add(const Array& a, const Array& b, const Array& c, const Array& d) {
  // The number of dimensions is not part of an array_t, as it is of a nanobind array.
  if (a.ndim() != 1 || b.ndim() != 1 || c.ndim() != 1 || d.ndim() != 1) {
    throw py::type_error("a, b, c, d: expected one dimension");
  }
  binding_overhead::require_equal_lengths(a.size(), b.size(), c.size(), d.size());
  py::array_t<float> result(a.size());
  float* out = result.mutable_data();
  {
    py::gil_scoped_release release;
    binding_overhead::multiply_add(a.data(), b.data(), c.data(), d.data(), out, a.size());
  }
  return result;
}

}  // namespace

PYBIND11_MODULE(pybind11_module, m) {
  m.def("multiply_add", &multiply_add, "a"_a.noconvert(), "b"_a.noconvert(), "c"_a.noconvert(),
        "d"_a.noconvert());
}
