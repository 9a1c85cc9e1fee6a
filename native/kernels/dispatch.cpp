// Chooses the kernels at run time.
#include <cstdlib>
#include <cstring>

#include "kernels.h"

namespace qs5 {

namespace baseline {
extern const Kernels table;
}
#if defined(QS5_X86_DISPATCH)
namespace avx2 {
extern const Kernels table;
}
namespace avx512 {
extern const Kernels table;
}
#endif

namespace {

const Kernels &choose() {
  const char *limit = std::getenv("QS5_NATIVE_ISA");
  if (limit != nullptr && std::strcmp(limit, "baseline") == 0) return baseline::table;
#if defined(QS5_X86_DISPATCH)
  const bool narrow = limit != nullptr && std::strcmp(limit, "avx2") == 0;
  const bool wide = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                    __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  if (wide && !narrow) return avx512::table;
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return avx2::table;
#endif
  return baseline::table;
}

} // namespace

const Kernels &kernels() {
  static const Kernels &chosen = choose();
  return chosen;
}

} // namespace qs5
