// All kernels for one instruction set, QS5_ISA. Includes no part of the C++ library that has inline functions: the linker
// keeps one copy of those, perhaps one compiled for instructions that the processor does not have.
#include "layer_backward.h"
#include "prefix.h"
#include "scan.h"

#define QS5_STRING_OF(x) #x
#define QS5_STRING(x) QS5_STRING_OF(x)

namespace qs5 {
namespace QS5_ISA {

extern const Kernels table;
const Kernels table{QS5_STRING(QS5_ISA), layer_forward, layer_backward, scan_forward,
                    scan_backward,       prefix_forward, prefix_backward};

} // namespace QS5_ISA
} // namespace qs5
