"""Project files: one SQLite file that keeps a session's work. No Qt; nothing that is read can run code."""
