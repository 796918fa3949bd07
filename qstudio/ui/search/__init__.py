"""Mixed precision in the window: the search, its front, the bits of every layer."""
