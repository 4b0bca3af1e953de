"""What a download costs: processor time against the barest loop over the same bytes, memory, and 30 kills at random moments.
Prints a table. The hub is one on this machine, so that the network costs nothing.

    python -m tests.bench.download_cost [--megabytes 400] [--kills 30]
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.fakes.fake_hub import FakeHub, FakeRepository

BAREST = """
import httpx2, resource, sys, time
with httpx2.Client(follow_redirects=True, timeout=20) as client:
    before, size = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with client.stream("GET", sys.argv[1] + "/o/r/resolve/main/m.gguf") as response:
        for chunk in response.iter_raw():
            pass
print(time.process_time() - before, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - size) / 1024)
"""
OURS = """
import resource, sys, time
from pathlib import Path
import filelock, httpx2, huggingface_hub.hf_api
from kvdesk.backend.library.hub.downloads import Downloads
from kvdesk.backend.library.hub.hub import Hub
from queue import SimpleQueue
hub, told = Hub(sys.argv[1]), SimpleQueue()
model = hub.repository("o/r").models[0]
downloads = Downloads(hub, Path(sys.argv[2]), told.put)
before, size = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
downloads.start(model)
stages = {}
while (state := told.get()).stage != "done":
    if state.stage == "loading" and "loading" not in stages:
        print("loading", flush=True)
    stages.setdefault(state.stage, time.process_time() - before)
loading, all_of_it = stages["checking"] - stages.get("loading", 0), time.process_time() - before
print(loading, all_of_it - stages["checking"], (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - size) / 1024)
"""

LONGEST_LIFE_S = 0.02
"""Of a download that is killed, counted from its first bytes; so short that 400 MB do not arrive before the last kill."""


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=400)
    parser.add_argument("--kills", type=int, default=30)
    args = parser.parse_args()
    content = b"GGUF" + random.Random(1).randbytes(1_000_000) * args.megabytes
    with FakeHub() as hub, tempfile.TemporaryDirectory() as folder:
        hub.repositories["o/r"] = FakeRepository({"m.gguf": content})
        seconds, megabytes = (float(text) for text in run(BAREST, hub.endpoint).split())
        print(f"barest loop      {1000 * seconds / args.megabytes:5.2f} s of processor a GB, {megabytes:.0f} MiB")
        loading, checking, megabytes = (
            float(text) for text in run(OURS, hub.endpoint, folder).splitlines()[-1].split()
        )
        print(f"kvdesk, loading  {1000 * loading / args.megabytes:5.2f} s of processor a GB, {megabytes:.0f} MiB")
        print(f"kvdesk, checksum {1000 * checking / args.megabytes:5.2f} s of processor a GB")
        kills(hub, content, Path(folder), args.kills)


def kills(hub: FakeHub, content: bytes, folder: Path, count: int) -> None:
    """Kill a download at random moments until it has survived ``count`` of them, then let it finish."""
    target = folder / "o" / "r" / "m.gguf"
    target.unlink()
    chance, before, at_work = random.Random(2), len(hub.requests), 0
    for _ in range(count):
        arguments = [sys.executable, "-c", OURS, hub.endpoint, str(folder)]
        process = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(chance.random() * LONGEST_LIFE_S)
        at_work += process.poll() is None
        process.kill()
        process.communicate()
        if target.exists() and target.read_bytes() != content:
            print("a damaged file is in place")
            sys.exit(1)
    run(OURS, hub.endpoint, str(folder))
    fetched = sum(1 for asked in hub.requests[before:] if "/content/" in asked.path)
    is_whole = target.read_bytes() == content
    print(f"killed           {count} times ({at_work} at work), {fetched} requests, whole in the end: {is_whole}")
    if not is_whole:
        sys.exit(1)


def run(code: str, *arguments: str) -> str:
    """What a process of its own prints."""
    environment = {name: text for name, text in os.environ.items() if not name.lower().endswith("_proxy")}
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, env=environment, check=True
    )
    return done.stdout


if __name__ == "__main__":
    main()
