"""Closed forms: what stability, saddles and noise do to sharpness-aware steps, to be set beside measurements."""
