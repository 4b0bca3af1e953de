"""Entry of ``kvdesk`` and ``python -m kvdesk``."""

from __future__ import annotations

import sys


def main() -> int:
    """Run the command line; returns the exit code."""
    import multiprocessing

    multiprocessing.freeze_support()
    from kvdesk import cli

    return cli.main(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
