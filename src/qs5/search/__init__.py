"""Automatic choice of bits: what every site costs and hurts, and the best bits within a budget."""
