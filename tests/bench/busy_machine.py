"""What the engine's speed loses when another program keeps one core busy: libgomp's own spinning against kvdesk's.

python -m tests.bench.busy_machine [--rounds 3] [--threads N]
"""

from __future__ import annotations

import argparse
import dataclasses
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

import psutil

from kvdesk.backend.engine.engine import Engine
from kvdesk.backend.settings import ContextSettings
from tests.bench.engine_speed import load_words, show, story
from tests.bench.kv_convert import starter
from tests.engine.harness import GREEDY, Desk

LIBGOMP_DEFAULT = "300000"


def speeds(folder: Path, number: int, n_threads: int, environment: dict[str, str]) -> tuple[float, float]:
    """(prompt tokens a second, tokens a second) of one reply of 40 tokens."""
    with Desk(folder) as desk:
        desk.engine.shutdown()
        desk.engine = Engine(desk.events.put, folder, environment=environment)
        desk.load(starter(), ContextSettings(n_ctx=2048, n_threads=n_threads))
        _, stats = desk.answer(story(number, 12), sampling=dataclasses.replace(GREEDY, max_tokens=40))
    assert stats.prompt_tokens_per_second
    assert stats.tokens_per_second
    return stats.prompt_tokens_per_second, stats.tokens_per_second


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=psutil.cpu_count(logical=False) or 1)
    options = parser.parse_args()
    print(f"{options.threads} threads; {load_words()}")
    for is_busy in (False, True):
        other = subprocess.Popen([sys.executable, "-c", "while True: pass"]) if is_busy else None
        prompt: list[float] = []
        decode: list[float] = []
        try:
            with tempfile.TemporaryDirectory() as name:
                for number in range(options.rounds):
                    spinning = speeds(Path(name), number, options.threads, {"GOMP_SPINCOUNT": LIBGOMP_DEFAULT})
                    ours = speeds(Path(name), number, options.threads, {})
                    prompt.append(ours[0] / spinning[0])
                    decode.append(ours[1] / spinning[1])
        finally:
            if other:
                other.kill()
                other.wait()
        beside = "beside a busy core" if is_busy else "nothing beside"
        for what, ratios in (("prompt", prompt), ("decode", decode)):
            spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
            show(f"{what}, {beside}, against libgomp's own spinning", f"{median(ratios):.2f}", spread)


if __name__ == "__main__":
    main()
