"""The mechanics of one step: to the ascent point and back, what is guarded meanwhile, and what is recorded."""
