"""Training: what it is asked with, and its curves."""
