"""Measurements of speed; results land under results/bench/."""
