"""Run an exported model in integers, as onnxruntime's fused kernels compute it."""
