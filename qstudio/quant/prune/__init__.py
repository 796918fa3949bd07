"""Pruning: filters and single weights that are taken away before a network is quantized."""
