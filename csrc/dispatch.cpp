#include "dispatch.h"

#include <cstdlib>
#include <stdexcept>
#include <string>

namespace encodec_fast {

namespace portable {
extern const Kernels table;
}
#ifdef ENCODEC_FAST_HAVE_AVX2
namespace avx2 {
extern const Kernels table;
}
#endif

namespace {

constexpr Isa kPortable = {"portable", &portable::table};

#ifdef ENCODEC_FAST_HAVE_AVX2
constexpr Isa kAvx2 = {"avx2", &avx2::table};
bool has_avx2() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }
#else
constexpr Isa kAvx2 = {"avx2", nullptr};
bool has_avx2() { return false; }
#endif

Isa choose() {
  const char* forced = std::getenv("ENCODEC_FAST_ISA");
  if (forced == nullptr || *forced == '\0') return has_avx2() ? kAvx2 : kPortable;
  const std::string name = forced;
  if (name == kPortable.name) return kPortable;
  if (name != kAvx2.name) {
    throw std::invalid_argument("ENCODEC_FAST_ISA: expected 'portable' or 'avx2', found '" + name +
                                "'");
  }
  if (!has_avx2())
    throw std::invalid_argument("ENCODEC_FAST_ISA: this CPU or build has no '" + name + "'");
  return kAvx2;
}

}  // namespace

const Isa& isa() {
  static const Isa chosen = choose();
  return chosen;
}

}  // namespace encodec_fast
