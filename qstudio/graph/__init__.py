"""ONNX to torch.fx: reading models, translating operators, preparing graphs."""
