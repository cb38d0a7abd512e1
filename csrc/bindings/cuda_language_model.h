#pragma once

#include "bindings/arrays.h"

namespace encodec_fast {

void bind_cuda_language_model(nb::module_& m);

}  // namespace encodec_fast
