"""The model: ONNX is the front door, torch.fx the machine."""
