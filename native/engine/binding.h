// What the extension module shows of the engine.
#pragma once

#include <nanobind/nanobind.h>

namespace qs5 {

void bind_engine(nanobind::module_ &m);

} // namespace qs5
