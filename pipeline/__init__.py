"""From file to verdict: decode, sample, detect, track, crop, encode, temporal, verdict, answer.

Pure functions and small objects; no web framework and no torch.
"""

import os

# ONNX Runtime reports its use to its vendor from the moment that it is imported, unless this is set
# before. Whoever wants that can set it to 0.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
