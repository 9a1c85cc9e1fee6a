"""Native training kernels behind `jax.ffi`, each with the gradient that JAX needs.

Their oracle is the same computation in plain JAX, which stays in use where a kernel is missing:

| kernel            | the same in JAX                                                          |
|-------------------|--------------------------------------------------------------------------|
| `layer.layer`     | a layer composed of the operations of an `Arithmetic` (`qs5.model.layer`) |
| `scan.scan`       | `qs5.model.recurrence.scan_sequential`                                   |
| `prefix.prefix`   | `qs5.quantization.dynamic_scan.tree_jax`                                 |
"""
