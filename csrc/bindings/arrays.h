// Arrays that cross between Python and the core. The sources of this folder are the only ones that
// know Python. Argument checks that need to know the caller's words are in encodec_fast/_native.py;
// what is checked here keeps memory safe whatever arrives.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <utility>
#include <vector>

#include "engine/require.h"

namespace encodec_fast {

namespace nb = nanobind;
using namespace nb::literals;

template <typename T, int N>
using Array = nb::ndarray<const T, nb::numpy, nb::ndim<N>, nb::c_contig, nb::device::cpu>;
template <typename T, int N>
using NewArray = nb::ndarray<T, nb::numpy, nb::ndim<N>>;

template <typename T>
NewArray<T, 2> new_array(size_t rows, size_t columns) {
  T* data = new T[std::max<size_t>(rows * columns, 1)];
  nb::capsule owner(data, [](void* p) noexcept { delete[] static_cast<T*>(p); });
  return NewArray<T, 2>(data, {rows, columns}, owner);
}

template <typename T>
NewArray<T, 3> new_array(size_t blocks, size_t rows, size_t columns) {
  T* data = new T[std::max<size_t>(blocks * rows * columns, 1)];
  nb::capsule owner(data, [](void* p) noexcept { delete[] static_cast<T*>(p); });
  return NewArray<T, 3>(data, {blocks, rows, columns}, owner);
}

template <typename T>
NewArray<T, 1> new_array(size_t size) {
  T* data = new T[std::max<size_t>(size, 1)];
  nb::capsule owner(data, [](void* p) noexcept { delete[] static_cast<T*>(p); });
  return NewArray<T, 1>(data, {size}, owner);
}

// Without a copy.
template <typename T>
NewArray<T, 1> to_array(std::vector<T> values) {
  auto* kept = new std::vector<T>(std::move(values));
  nb::capsule owner(kept, [](void* p) noexcept { delete static_cast<std::vector<T>*>(p); });
  return NewArray<T, 1>(kept->data(), {kept->size()}, owner);
}

inline nb::bytes to_bytes(const std::vector<uint8_t>& v) { return nb::bytes(v.data(), v.size()); }
inline const uint8_t* bytes_begin(const nb::bytes& b) {
  return static_cast<const uint8_t*>(b.data());
}

template <typename A>
int64_t rows_of(const A& a) {
  return static_cast<int64_t>(a.shape(0));
}
template <typename A>
int64_t columns_of(const A& a) {
  return static_cast<int64_t>(a.shape(1));
}

void bind_program(nb::module_& m);
void bind_streams(nb::module_& m);
void bind_entropy(nb::module_& m);
void bind_coders(nb::module_& m);
void bind_language_model(nb::module_& m);

}  // namespace encodec_fast
