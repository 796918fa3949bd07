"""Refinements: what is done to a network so that rounding it costs less."""
