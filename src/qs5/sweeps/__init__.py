"""Grids of runs: cells with an identity, run by several processes, resumable at any moment."""
