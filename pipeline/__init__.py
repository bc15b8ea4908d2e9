"""From file to verdict: decode, sample, detect, track, crop, encode, temporal, verdict, answer.

Pure functions and small objects; no web framework and no torch.
"""
