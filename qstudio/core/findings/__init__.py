"""Findings: rules that look at what is known of a model and say what hurts, why, and what to do about it."""
