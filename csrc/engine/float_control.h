// Round to nearest and kept denormals while the engine computes: other libraries in the process
// change the control word.
#pragma once

#if defined(__x86_64__) || defined(__i386__)
#include <xmmintrin.h>
#else
#include <cfenv>
#endif

namespace encodec_fast {

class FloatControl {
 public:
#if defined(__x86_64__) || defined(__i386__)
  FloatControl() : saved_(_mm_getcsr()) { _mm_setcsr(kDefault); }
  ~FloatControl() { _mm_setcsr(saved_); }
#else
  FloatControl() {
    std::fegetenv(&saved_);
    std::fesetenv(FE_DFL_ENV);
  }
  ~FloatControl() { std::fesetenv(&saved_); }
#endif
  FloatControl(const FloatControl&) = delete;
  FloatControl& operator=(const FloatControl&) = delete;

 private:
#if defined(__x86_64__) || defined(__i386__)
  static constexpr unsigned kDefault =
      0x1f80;  // exceptions masked, round to nearest, FTZ and DAZ off
  unsigned saved_;
#else
  std::fenv_t saved_;
#endif
};

}  // namespace encodec_fast
