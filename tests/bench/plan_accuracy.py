"""How exact the plan is: every tiny architecture and the starter, each loaded for real after it was planned. Prints tables.

    python -m tests.bench.plan_accuracy [--architectures llama,gemma3] [--whole-process]

First table: buffers by llama.cpp's own accounting, to the byte, in three configurations. Second: the engine process's
resident memory after its first reply against what was predicted for it.
"""

from __future__ import annotations

import argparse
import os
import queue
import sys
import tempfile
from collections import Counter
from pathlib import Path

from tests.plan_reality import RealLoads, differences
from tests.tiny_models import ARCHITECTURES, write_tiny

MIB = 1024 * 1024


def main() -> int:
    """Print both tables; 1 when anything is further off than promised."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--architectures", help="only these, with commas between")
    parser.add_argument("--whole-process", action="store_true", help="only the second table")
    args = parser.parse_args()
    chosen = tuple(args.architectures.split(",")) if args.architectures else ARCHITECTURES
    with tempfile.TemporaryDirectory() as folder:
        os.environ["KVDESK_HOME"] = os.path.join(folder, "home")
        from kvdesk.backend.library.models import starter_model

        wrong = 0
        if not args.whole_process:
            files = [write_tiny(name, Path(folder)) for name in chosen]
            starter = starter_model()
            wrong += buffers([*files, starter] if starter else files)
        wrong += whole_process(Path(folder))
    return 1 if wrong else 0


def buffers(files: list[Path]) -> int:
    """Print what differs between plan and load; returns how many configurations do."""
    from kvdesk.backend.gguf.model_file import read_model_file
    from kvdesk.backend.planning.dry_run import DryRun
    from kvdesk.backend.settings import ContextSettings, EngineSettings, ModelSettings
    from kvdesk.errors import KvdeskError

    mapped, copied = (ModelSettings(use_extra_bufts=False, use_mmap=mmap) for mmap in (True, False))
    asked = (
        EngineSettings(mapped, ContextSettings(n_ctx=1000)),
        EngineSettings(mapped, ContextSettings(n_ctx=3000, type_k="q8_0", type_v="q8_0", n_ubatch=128, swa_full=True)),
        EngineSettings(copied, ContextSettings(n_ctx=1024, flash_attn="off", n_seq_max=2)),
    )
    counts: Counter[str] = Counter()
    with RealLoads() as reality:
        for path in files:
            with DryRun(read_model_file(path)) as dry_run:
                for number, settings in enumerate(asked, 1):
                    real = reality.load(path, settings)
                    try:
                        planned = dry_run.ask(settings)
                    except KvdeskError as error:
                        counts["refused by both" if "error" in real else "different"] += 1
                        print(f"{path.stem:28} {number}  not planned: {error}")
                        continue
                    found = real["error"] if "error" in real else differences(real, planned)
                    counts["different" if found else "equal"] += 1
                    if found:
                        print(f"{path.stem:28} {number}  " + "; ".join(found))
    total = sum(counts.values())
    print(f"{len(files)} models, {total} configurations: " + ", ".join(f"{n} {word}" for word, n in counts.items()))
    return counts["different"]


def whole_process(folder: Path) -> int:
    """Print predicted against resident memory of an engine process; returns how many are off by more than the promise."""
    from kvdesk.backend.engine.engine import Engine
    from kvdesk.backend.engine.engine_event import Died
    from kvdesk.backend.gguf.model_file import read_model_file
    from kvdesk.backend.library.models import starter_model
    from kvdesk.backend.planning.calibration import Calibration
    from kvdesk.backend.planning.pricer import Pricer
    from kvdesk.backend.protocol.facts import ChatTurn
    from kvdesk.backend.protocol.messages import Failed, Generate, Loaded, TurnFinished
    from kvdesk.backend.sampling import SamplingSettings
    from kvdesk.backend.settings import ContextSettings, EngineSettings, ModelSettings
    from kvdesk.backend.system.process_memory import family_memory

    wrong = 0
    print(f"{'model':16}{'n_ctx':>8}{'prompt':>8}{'predicted':>11}{'resident':>10}{'error':>8}  MiB")
    files = [write_tiny(name, folder) for name in ("llama", "gemma3", "lfm2", "mamba")]
    starter = starter_model()
    for path in [*files, *([starter] if starter else [])]:
        for n_ctx, words in ((2048, 2), (8192, 300), (32768, 2)):
            context = ContextSettings(n_ctx=n_ctx, allocation="reserve")
            settings = EngineSettings(ModelSettings(use_extra_bufts=False), context)
            with Pricer(read_model_file(path), Calibration(folder / "calibration.json")) as pricer:
                plan = pricer.plan(settings, (), with_max=False)
            events: queue.SimpleQueue[object] = queue.SimpleQueue()
            engine = Engine(events.put, folder)
            engine.load(path, settings)
            while True:
                event = events.get(timeout=120)
                if isinstance(event, Loaded):
                    turn = ChatTurn("user", "Tell me a story. " * (words // 4 + 1))
                    engine.send(Generate(1, "c", (turn,), SamplingSettings(temperature=0, max_tokens=2)))
                if isinstance(event, (TurnFinished, Died, Failed)):
                    break
            memory = family_memory((engine.pid,)) if isinstance(event, TurnFinished) and engine.pid else None
            engine.shutdown()
            if memory is None or not isinstance(event, TurnFinished):
                print(f"{path.stem:16}{n_ctx:>8}  {event}")
                wrong += 1
                continue
            predicted, resident = plan.resident_bytes, memory.resident_bytes
            off = abs(predicted - resident) > max(0.01 * resident, 40 * MIB)
            wrong += off
            print(
                f"{path.stem:16}{n_ctx:>8}{event.stats.prompt_tokens:>8}{predicted / MIB:>11.1f}{resident / MIB:>10.1f}"
                f"{(predicted - resident) / MIB:>+8.1f}{'  off' if off else ''}"
            )
    return wrong


if __name__ == "__main__":
    sys.exit(main())
