"""The native integer engine beside float32 peers of the same structure: C and ONNX Runtime."""
