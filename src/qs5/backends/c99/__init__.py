"""An integer model as C99 source: no allocation, no library, no floating point, constants in ROM.

    from qs5.backends.c99 import Golden, export
    export(model, Path("out"), golden=Golden(sequences=..., answers=...))

writes model.c, model.h, main.c, selftest.c and a Makefile. `runtime/qs5_kernels.h` has the ops; it is pasted into
model.c, which else only declares constants and calls kernels in the order of the model's ops. `templates/` has the
programs around it.
"""

from qs5.backends.c99.export import Export as Export, Golden as Golden, export as export
from qs5.backends.c99.host import available as available, engine as engine
from qs5.backends.c99.source import KERNELS as KERNELS
