"""What `make run` does: the window where there is a screen, else one question asked of it offscreen."""

import os
import sys
from pathlib import Path

QUESTION = "What is the capital of France?"


def main() -> int:
    """``run.py [MODEL]``; without one the starter model is opened."""
    from kvdesk.cli import main as kvdesk

    arguments = sys.argv[1:]
    has_screen = sys.platform != "linux" or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    if not has_screen:
        picture = Path(__file__).parents[1] / "screenshots" / "run.png"
        arguments += ["--demo", QUESTION, "--screenshot", str(picture)]
    return kvdesk(arguments)


if __name__ == "__main__":
    sys.exit(main())
