"""qs5 beside the alternatives, in the same run: official formulation, AQT, PyTorch, s5-pytorch, ONNX Runtime."""
