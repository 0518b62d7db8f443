"""`python -m nenya_nb` is the command line."""

import sys

from nenya_nb.cli import main

sys.exit(main())
