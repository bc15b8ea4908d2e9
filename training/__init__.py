"""From footage to a checkpoint: corpus, windows, alterations, training, evaluation and calibration."""
