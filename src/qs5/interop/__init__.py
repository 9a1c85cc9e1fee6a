"""Parameters of other S5 implementations, as `S5Model`."""

from qs5.interop.lindermanlab import from_lindermanlab as from_lindermanlab
