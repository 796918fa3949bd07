"""The runs: table, detail, and what their figures mean in words."""
