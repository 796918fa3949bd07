"""Session: what a person works on, without Qt."""
