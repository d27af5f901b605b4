"""Measurements of training and of minima: they read what the optimizer layer offers and change nothing."""
