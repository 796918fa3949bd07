"""Backends: export to QDQ, onnxruntime sessions, timing."""
