// A language model's weights on a device: uploaded once, shared by all coders that run there.
#pragma once

#include <memory>
#include <vector>

#include "cuda/runtime.h"
#include "engine/language_model.h"

namespace encodec_fast::cuda {

struct DeviceMatrix {
  const float* panels;  // [n rounded up to panels / 16][k][16]
  const float* bias;    // [n rounded up to panels]
  int64_t k, n;
};

struct DeviceNorm {
  const float* scale;   // [dim]
  const float* offset;  // [dim]
};

struct DeviceLmLayer {
  DeviceMatrix qkv, out, up, down;
  DeviceNorm norm1, norm2;
};

class DeviceLanguageModel {
 public:
  // model must be sealed. Throws DeviceError.
  DeviceLanguageModel(std::shared_ptr<const LanguageModel> model, int device);

  const LanguageModel& model() const { return *model_; }
  int device() const { return device_; }
  int multiprocessors() const { return multiprocessors_; }

  const DeviceNorm& norm() const { return norm_; }
  const std::vector<DeviceLmLayer>& layers() const { return layers_; }
  const float* embeddings() const { return embeddings_; }  // [books][entries + 1][dim]
  const double* rates() const { return rates_; }           // [dim / 2]
  // The heads of the first n_q codebooks side by side, each padded() columns wide.
  DeviceMatrix heads(int64_t n_q) const {
    return {heads_.panels, heads_.bias, heads_.k, n_q * padded()};
  }
  // Entries rounded up to panels.
  int64_t padded() const { return padded_; }

 private:
  std::shared_ptr<const LanguageModel> model_;
  int device_, multiprocessors_;
  int64_t padded_;
  DeviceMemory memory_;
  DeviceNorm norm_ = {};
  std::vector<DeviceLmLayer> layers_;
  DeviceMatrix heads_ = {};
  const float* embeddings_ = nullptr;
  const double* rates_ = nullptr;
};

}  // namespace encodec_fast::cuda
