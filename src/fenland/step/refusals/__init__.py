"""What cannot work is refused, by name, with the reason and the cure; what would go wrong unseen is warned of once."""
