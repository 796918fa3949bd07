"""Frozen values and numpy arithmetic; no Qt, no torch, no onnx."""
