"""Many runs, each once: planned, spread over processes or a cluster, watched and tracked."""
