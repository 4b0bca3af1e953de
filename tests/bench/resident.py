"""What the engine really holds against its plan: after the first reply, after twelve turns, after a hundred context changes
and one more full batch.

    python -m tests.bench.resident [--only NAME]

Each setting is loaded once for the overhead to be learned, as the app does, and once to be measured. Aim: within 1 % or 16 MiB.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from kvdesk.backend.protocol import messages as m
from kvdesk.backend.protocol.facts import ChatTurn
from kvdesk.backend.sampling import SamplingSettings
from kvdesk.backend.settings import ContextSettings, EngineSettings, ModelSettings
from kvdesk.sizes import MIB
from tests.bench.engine_speed import SENTENCE
from tests.engine.harness import Desk

SHORT = SamplingSettings(temperature=0.0, max_tokens=20)
CHANGES = 100
TURNS = 12


def cases(folder: Path) -> dict[str, tuple[Path, EngineSettings]]:
    """Name -> model and settings."""
    from kvdesk.backend.library.models import starter_model
    from tests.tiny_models import write_tiny

    big = {"n_embd": 1024, "n_head": 8, "n_head_kv": 2, "n_ff": 4096, "n_vocab": 8192, "n_ctx_train": 8192}
    llama = write_tiny("llama", folder, n_layer=8, weight_type="q4_0", **big)
    mamba = write_tiny("mamba", folder, n_layer=8, n_embd=1024, n_vocab=8192, n_ctx_train=8192, ssm__inner_size=2048)
    moe = write_tiny("qwen3moe", folder, n_layer=4, weight_type="q8_0", **big, expert_count=8, expert_used_count=2, expert_feed_forward_length=1024)  # fmt: skip
    starter = starter_model()
    plain, repacked = ModelSettings(use_extra_bufts=False), ModelSettings()
    f16 = ContextSettings(n_ctx=4096, allocation="reserve")
    q8_0 = replace(f16, type_k="q8_0", type_v="q8_0")
    found = {
        "llama Q4_0, mapped, f16": (llama, EngineSettings(plain, f16)),
        "llama Q4_0, repacked, f16": (llama, EngineSettings(repacked, f16)),
        "llama Q4_0, repacked, q8_0": (llama, EngineSettings(repacked, q8_0)),
        "llama Q4_0, read, batch 2048": (llama, EngineSettings(ModelSettings(use_mmap=False), replace(f16, n_ctx=8192, n_batch=2048, n_ubatch=2048))),
        "mixture Q8_0, f16": (moe, EngineSettings(plain, f16)),
        "mamba F16": (mamba, EngineSettings(plain, f16)),
    }  # fmt: skip
    if starter:
        found |= {
            "starter, f16": (starter, EngineSettings(plain, f16)),
            "starter, repacked, f16": (starter, EngineSettings(repacked, f16)),
            "starter, q8_0": (starter, EngineSettings(plain, q8_0)),
            "starter, flash attention off": (starter, EngineSettings(plain, replace(f16, flash_attn="off"))),
            "starter, full windows": (starter, EngineSettings(plain, replace(f16, swa_full=True))),
            "starter, 16,384": (starter, EngineSettings(plain, replace(f16, n_ctx=16_384))),
        }
    return found


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="settings whose name has this in it")
    only = parser.parse_args().only
    with tempfile.TemporaryDirectory() as folder:
        os.environ["KVDESK_HOME"] = os.path.join(folder, "home")
        heads = ("first reply", "12 turns", "100 changes")
        print(f"{'(MiB)':30}" + "".join(f"{head:>24}" for head in heads))
        for name, (path, settings) in cases(Path(folder)).items():
            if only in name:
                print(f"{name:30}" + "".join(measured(path, settings, Path(folder))), flush=True)
    return 0


def measured(path: Path, settings: EngineSettings, folder: Path) -> list[str]:
    """A column for each moment: held, planned, how far off."""
    from kvdesk.backend.gguf.model_file import read_model_file
    from kvdesk.backend.planning.calibration import Calibration, compare
    from kvdesk.backend.planning.pricer import Pricer

    calibration = Calibration(folder / "calibration.json")
    with Pricer(read_model_file(path), calibration) as pricer:
        with Desk(folder) as desk:
            loaded = desk.load(path, settings.context, settings.model)
            desk.answer(full_batch(desk, settings.context), sampling=SHORT)
            kept = desk.of(m.TurnFinished)[-1].kv.checkpoints_bytes
            first = pricer.plan(settings, (), with_max=False)
            learned = compare(first, pricer.model, loaded.context.buffers, {"RAM": held(desk)}, kept)
            calibration.learn(first, pricer.model, learned)
        ram = pricer.plan(settings, (), with_max=False).devices[0]
    with Desk(folder) as desk:
        desk.load(path, settings.context, settings.model)
        said: list[str] = []
        columns: list[str] = []
        for number in range(TURNS):
            said += [f"{number}. {SENTENCE[:180]}" if number else full_batch(desk, settings.context)]
            said.append(desk.answer(*said, sampling=SHORT)[0] or "So.")
            if number in (0, TURNS - 1):
                columns.append(column(desk, ram.resident_bytes))
        other = replace(settings.context, n_ctx=settings.context.n_ctx * 2)
        for _ in range(CHANGES // 2):
            for context in (other, settings.context):
                desk.engine.send(m.SetContext(context))
                desk.until(m.ContextMade)
        desk.answer(f"Something else. {full_batch(desk, settings.context)}", sampling=SHORT, conversation_id="another")
        columns.append(column(desk, ram.resident_bytes))
    return columns


def full_batch(desk: Desk, settings: ContextSettings) -> str:
    """A text that fills a physical batch: what it does not touch of the compute buffer, no shorter one does."""
    desk.engine.send(m.CountTokens(1, (ChatTurn("user", SENTENCE),)))
    return SENTENCE * (settings.n_ubatch // desk.until(m.TokensCounted).n_tokens + 1)


def column(desk: Desk, resident_bytes: int) -> str:
    """What is held beside what the plan says of this moment: its resident bytes and the checkpoints that there are."""
    kv = [*desk.of(m.TurnFinished)][-1].kv
    planned, now = resident_bytes + kv.checkpoints_bytes, held(desk)
    return f"{now / MIB:8.0f} {planned / MIB:6.0f} {(now - planned) / MIB:+8.1f}"


def held(desk: Desk) -> int:
    """Resident bytes of the engine, to the page."""
    from kvdesk.backend.system.process_memory import family_memory

    memory = family_memory((desk.engine.pid or 0,), exact=True)
    assert memory is not None
    assert memory.resident_bytes is not None
    return memory.resident_bytes


if __name__ == "__main__":
    sys.exit(main())
