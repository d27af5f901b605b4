"""The lab: train, measure and compare on real data.

It needs the extra ``fenland[lab]``; ``import fenland`` never loads it.
"""
