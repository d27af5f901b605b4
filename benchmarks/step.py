"""The cost of a step: `fenland bench` under its old name; all options are the same.

python benchmarks/step.py [--sets resnet20 wrn28_10] [--bases sgd sgd-fused] [--rounds 30] [--out FILE.json]
"""

import sys

from fenland.lab.cli import main

if __name__ == "__main__":
    sys.exit(main(["bench", *sys.argv[1:]]))
