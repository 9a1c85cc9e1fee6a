"""`python -m qs5`."""

import sys

from qs5.cli import main

if __name__ == "__main__":
    sys.exit(main())
