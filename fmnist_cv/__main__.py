"""`python -m fmnist_cv COMMAND`, the same as `fmnist-cv COMMAND`."""

import sys

from fmnist_cv.command_line import main

if __name__ == "__main__":
    sys.exit(main())
