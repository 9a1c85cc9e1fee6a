"""The axis letters of the shapes in every docstring.

| letter | axis                                                        |
|--------|-------------------------------------------------------------|
| L      | time steps of a sequence                                    |
| B      | sequences in a batch                                        |
| H      | features of the residual stream                             |
| P      | states of one layer, counting both of a conjugate pair      |
| M      | complex modes that are stored: P/2 with conjugate symmetry  |
| S      | 2M: real parts of all modes, then imaginary parts ("packed")|
| D      | input channels, or output channels of a head                |

Inside the package sequences are time-major, (L, B, H): the recurrence then walks contiguous slices, and a
product with a weight matrix sees one tall matrix. The public calls take (B, L, D) and turn it once.
"""
