"""Engine processes, their messages and their client."""
