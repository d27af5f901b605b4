"""Adapters for trainers: `lightning` (Trainer and Fabric), `transformers` and `accelerate`; import the one you use.

A trainer runs pass 1 as it always does; the adapter holds the micro-batches of the step, runs them again at w + e, and
has d clipped once. Nothing is imported here: each module needs its own library and says so.
"""
