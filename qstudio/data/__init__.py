"""Datasets: readers, preprocessing, splits."""
