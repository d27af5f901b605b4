"""``python -m fenland``, for torchrun and for where the script is not on the path."""

import sys

from fenland.lab.cli import main

if __name__ == "__main__":
    sys.exit(main())
