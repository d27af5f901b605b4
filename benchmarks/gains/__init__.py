"""What a method buys on real tasks: a plan of runs, its records, and the page made from them."""
