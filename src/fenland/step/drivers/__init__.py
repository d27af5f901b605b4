"""Who evaluates the gradients that a program asks for: a closure, one a micro-batch, or the user in two calls."""
