"""`python -m tfsft` is the command `tfsft`."""

import sys

from tfsft.cli import main

sys.exit(main())
