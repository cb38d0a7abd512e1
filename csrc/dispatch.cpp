#include "dispatch.h"

#include <cstdlib>
#include <stdexcept>

namespace encodec_fast {

namespace portable {
extern const Kernels table;
}
#ifdef ENCODEC_FAST_X86
namespace avx2 {
extern const Kernels table;
}
namespace avx512 {
extern const Kernels table;
}
namespace avx512vnni {
extern const Kernels table;
}
#endif

namespace {

struct Level {
  Isa isa;
  bool (*supported)();
};

#ifdef ENCODEC_FAST_X86
bool has_avx512() {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
         __builtin_cpu_supports("fma");
}
#endif

// Plainest first. Only x86-64 builds have the others.
constexpr Level kLevels[] = {
    {{"portable", &portable::table}, [] { return true; }},
#ifdef ENCODEC_FAST_X86
    {{"avx2", &avx2::table},
     [] { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }},
    {{"avx512", &avx512::table}, has_avx512},
    {{"avx512vnni", &avx512vnni::table},
     [] { return has_avx512() && __builtin_cpu_supports("avx512vnni"); }},
#else
    {{"avx2", nullptr}, [] { return false; }},
    {{"avx512", nullptr}, [] { return false; }},
    {{"avx512vnni", nullptr}, [] { return false; }},
#endif
};

Isa choose() {
  const char* forced = std::getenv("ENCODEC_FAST_ISA");
  const std::string name = forced == nullptr ? "" : forced;
  Isa best = kLevels[0].isa;
  for (const Level& level : kLevels) {
    if (name == level.isa.name) {
      if (level.supported()) return level.isa;
      throw std::invalid_argument("ENCODEC_FAST_ISA: this CPU or build has no '" + name +
                                  "', at most '" + best.name + "'");
    }
    if (level.supported()) best = level.isa;
  }
  if (name.empty()) return best;
  std::string known;
  for (const Level& level : kLevels)
    known += known.empty() ? level.isa.name : std::string(", ") + level.isa.name;
  throw std::invalid_argument("ENCODEC_FAST_ISA: expected one of " + known + "; found '" + name +
                              "'");
}

}  // namespace

const Isa& isa() {
  static const Isa chosen = choose();
  return chosen;
}

std::vector<std::string> supported_isas() {
  std::vector<std::string> names;
  for (const Level& level : kLevels) {
    if (level.supported()) names.emplace_back(level.isa.name);
  }
  return names;
}

}  // namespace encodec_fast
