// The entropy language model and its coder on a device.
#include "bindings/cuda_language_model.h"

#include <memory>

#include "bindings/lm_coder.h"
#include "cuda/lm_coder.h"

namespace encodec_fast {

void bind_cuda_language_model(nb::module_& m) {
  using cuda::DeviceLanguageModel;
  using Model = std::shared_ptr<DeviceLanguageModel>;
  nb::class_<DeviceLanguageModel>(m, "DeviceLanguageModel",
                                  "A language model's weights on a device.")
      .def(
          "__init__",
          [](DeviceLanguageModel* self, std::shared_ptr<LanguageModel> lm, int device) {
            lm->seal();
            new (self) DeviceLanguageModel(std::move(lm), device);
          },
          "lm"_a, "device"_a)
      .def_prop_ro("device", &DeviceLanguageModel::device);
  bind_lm_coder<cuda::LmCoder, Model>(m, [](const Model&) {});
}

}  // namespace encodec_fast
