"""Models as files that run without this package's modules: torch.export and ONNX graphs."""
