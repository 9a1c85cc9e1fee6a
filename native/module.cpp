// The extension module qs5._native.
#include <nanobind/nanobind.h>

#include "engine/binding.h"
#include "ffi.h"

namespace nb = nanobind;

NB_MODULE(_native, m) {
  m.doc() = "Native parts of qs5: training kernels, called by JAX through its foreign function interface, and the integer engine.";
  m.def(
      "handlers",
      [] {
        nb::dict found;
        int count = 0;
        const qs5::Handler *all = qs5::handlers(&count);
        for (int i = 0; i < count; ++i) found[all[i].name] = nb::capsule(all[i].function);
        return found;
      },
      "Name -> capsule, for jax.ffi.register_ffi_target.");
  m.def("instruction_set", &qs5::instruction_set, "The instruction set that was chosen for this processor.");
  qs5::bind_engine(m);
}
