"""Integer models as something that runs: one package a translation, and `mcu`, which emulates small devices."""
