"""Starts a frozen kvdesk as a person's machine would (no Python, nothing of this project around it), and asks it something.

``check_bundle.py PROGRAM [MODEL]``; without a model only the commands that need none. Used by ``make package``.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path


def main() -> int:
    """Check; 0 when all went as it should, else 1 and what did not."""
    program, *models = sys.argv[1:]
    with tempfile.TemporaryDirectory(prefix="kvdesk-check-") as home:
        environment = {
            "HOME": home,
            "KVDESK_HOME": str(Path(home) / "kvdesk"),
            "LANG": "C.UTF-8",
            "PATH": "/nowhere",
            "QT_QPA_PLATFORM": "offscreen",
        }
        for name in ("DISPLAY", "XDG_RUNTIME_DIR"):
            if name in os.environ:
                environment[name] = os.environ[name]
        os.mkdir(environment["KVDESK_HOME"])
        told = _run([program, "doctor", "--json"], environment)
        print(f"kvdesk {json.loads(told)['kvdesk']} starts")
        for model in models:
            plan = json.loads(_run([program, "plan", model, "--json"], environment))
            print(f"its planner prices {Path(model).name}: {len(plan)} figures")
            told = _run([program, model, "--demo", "What is the capital of France?", "--screenshot",
                         str(Path(home) / "window.png")], environment)  # fmt: skip
            print(told.strip())
            if "Paris" not in told:
                return 1
    return 0


def _run(command: list[str], environment: dict[str, str]) -> str:
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=400, check=False)
    if done.returncode:
        sys.exit(f"{command[1:]} failed with code {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
