// What the extension module shows of the kernels.
#pragma once

namespace qs5 {

// A handler of XLA's foreign function interface, by the name under which it is registered.
struct Handler {
  const char *name;
  void *function;
};

const Handler *handlers(int *count);

const char *instruction_set();

} // namespace qs5
