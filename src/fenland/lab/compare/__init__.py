"""The main job: several optimizers, several seeds, who wins and by how much."""
