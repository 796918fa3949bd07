"""The layer table: every layer of a model, and what is chosen for it."""
