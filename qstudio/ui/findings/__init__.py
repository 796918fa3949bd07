"""Findings in the window: the "why" card, the list of all, and the guided diagnosis."""
