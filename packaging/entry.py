"""What the frozen program runs: the same as ``python -m kvdesk``."""

import sys

from kvdesk.__main__ import main

sys.exit(main())
