"""What pass 2 must not leave behind, and where a step of the two-call form began."""
