"""Time and memory of a training step against length, width, layers, batch and threads."""
