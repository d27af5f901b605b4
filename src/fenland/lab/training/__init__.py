"""How one run is trained: its objects, its loop, its checkpoints, and the processes it may be spread over."""
