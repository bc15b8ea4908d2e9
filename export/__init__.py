"""From a checkpoint to a verified bundle: two ONNX graphs, a manifest and a card."""
