"""Repairs of post-training quantization: what is done to weights and scales so that rounding costs less."""
