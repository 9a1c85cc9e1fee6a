"""Which code of Lambda-bar loses least on a trained model, bit for bit."""
