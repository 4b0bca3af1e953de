"""The OOM line against a real one: at which limit of a control group does the kernel kill the engine, context filled?

    python -m tests.bench.oom_line [--only NAME]

Bisects the limit for a few models and prints it beside what the plan says must be held, and below which limit the run was
slow because weights had to be read again, beside what the plan says wants to stay. Needs the right to make control
groups (root, version 1 or 2); says so where it has none. The driver of the engine is in the group too: what it takes is
measured first and taken off.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from kvdesk.backend.protocol import messages as m
from kvdesk.backend.sampling import SamplingSettings
from kvdesk.backend.settings import ContextSettings, EngineSettings, ModelSettings
from kvdesk.sizes import MIB
from tests.engine.harness import Desk

STEP_BYTES = 4 * MIB
PATIENCE_S = 120
"""A run that takes longer reads its weights from the disk again and again: it is slow, not killed."""
SLOW_S = 3.0
"""A run this many times as long as one with all the memory it wants is slow too."""
TURNS = 12
"""As many leave all the checkpoints that the engine keeps."""
REPLY_TOKENS = 20
ROOT = Path(__file__).resolve().parents[2]
BIG = {"n_embd": 1024, "n_head": 8, "n_head_kv": 2, "n_ff": 4096, "n_vocab": 8192, "n_ctx_train": 8192}


class Group:
    """A control group of our own. ``limit`` binds it, swap included where the kernel lets one say so."""

    def __init__(self, folder: Path, version: int) -> None:
        self.folder, self._version = folder, version
        folder.mkdir()

    def limit(self, size_bytes: int | None) -> None:
        """None: no limit."""
        if self._version == 2:
            value = "max" if size_bytes is None else str(size_bytes)
            (self.folder / "memory.max").write_text(value)
            with contextlib.suppress(OSError):
                (self.folder / "memory.swap.max").write_text("0")
            return
        with contextlib.suppress(OSError):
            (self.folder / "memory.memsw.limit_in_bytes").write_text("-1")
        (self.folder / "memory.limit_in_bytes").write_text("-1" if size_bytes is None else str(size_bytes))

    def anonymous_bytes(self) -> int:
        """What its processes hold that cannot be dropped."""
        name = "anon" if self._version == 2 else "rss"
        pairs = (line.split() for line in (self.folder / "memory.stat").read_text().splitlines())
        return next(int(value) for key, value in pairs if key == name)

    def remove(self) -> None:
        with contextlib.suppress(OSError):
            self.folder.rmdir()


@contextlib.contextmanager
def own_group() -> Iterator[Group | None]:
    """A group below the one this process is in; None where none may be made."""
    from kvdesk.backend.system.cgroup import memory_groups

    made = None
    for group in memory_groups():
        try:
            made = Group(group.folder / f"kvdesk-bench-{os.getpid()}", group.version)
            made.limit(None)
            break
        except OSError:
            if made:
                made.remove()
            made = None
    try:
        yield made
    finally:
        if made:
            made.remove()


def models(folder: Path) -> dict[str, tuple[Path, EngineSettings]]:
    """Name -> file and settings."""
    from kvdesk.backend.library.models import starter_model
    from tests.tiny_models import write_tiny

    n_ctx = 4096
    f16 = ContextSettings(n_ctx=n_ctx, allocation="reserve", flash_attn="on")
    q8_0 = ContextSettings(n_ctx=n_ctx, allocation="reserve", flash_attn="on", type_k="q8_0", type_v="q8_0")
    repacked, plain = ModelSettings(), ModelSettings(use_extra_bufts=False)
    llama = write_tiny("llama", folder, n_layer=8, weight_type="q4_0", **BIG)
    wide = {**BIG, "expert_count": 8, "expert_used_count": 2, "expert_feed_forward_length": 1024}
    mixture = write_tiny("qwen3moe", folder, n_layer=4, weight_type="q8_0", **wide)
    mamba = write_tiny("mamba", folder, n_layer=8, n_embd=1024, n_vocab=8192, n_ctx_train=8192, ssm__inner_size=2048)
    found = {
        "llama Q4_0, repacked": (llama, EngineSettings(repacked, f16)),
        "llama Q4_0, mapped": (llama, EngineSettings(plain, f16)),
        "llama Q4_0, KV q8_0": (llama, EngineSettings(repacked, q8_0)),
        "mixture Q8_0": (mixture, EngineSettings(plain, f16)),
        "mamba F16": (mamba, EngineSettings(plain, f16)),
    }
    starter = starter_model()
    if starter:
        found["starter, KV f16"] = (starter, EngineSettings(repacked, f16))
        found["starter, KV q8_0"] = (starter, EngineSettings(repacked, q8_0))
    return found


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", help="models whose name has this in it")
    parser.add_argument("--drive", nargs=2, metavar=("MODEL", "SETTINGS"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.drive:
        return drive(Path(args.drive[0]), args.drive[1])
    with tempfile.TemporaryDirectory() as folder, own_group() as group:
        if group is None:
            print("No control group can be made here (it takes root, or a delegated group): nothing measured.")
            return 0
        os.environ["KVDESK_HOME"] = os.path.join(folder, "home")
        print(
            f"{'(MiB)':24} {'must hold':>9} {'killed under':>13} {'off':>9} {'':7} {'wants to stay':>13} {'slow under':>11}"
        )
        for name, (path, settings) in models(Path(folder)).items():
            if not args.only or args.only in name:
                print_row(group, name, path, settings, Path(folder))
    return 0


def print_row(group: Group, name: str, path: Path, settings: EngineSettings, folder: Path) -> None:
    """Plan, bisect, print."""
    must_hold, wants = planned(path, settings, folder)
    free = run(group, path, settings, wants * 2 + 512 * MIB)
    low, high = must_hold - must_hold // 3, must_hold + must_hold // 3 + 96 * MIB  # the driver is in there too
    slow_under = 0
    while high - low > STEP_BYTES:
        middle = (low + high) // 2
        one = run(group, path, settings, middle)
        if one.took_s > SLOW_S * free.took_s:
            slow_under = max(slow_under, middle)
        low, high = (low, middle) if one.lived else (middle, high)
    needed = high - free.driver_bytes
    off = must_hold - needed
    slow = f"{(slow_under - free.driver_bytes) / MIB:11.0f}" if slow_under > high else "          -"
    columns = f"{must_hold / MIB:9.0f} {needed / MIB:13.0f} {off / MIB:+9.0f} {off / needed:+7.1%}"
    print(f"{name:24} {columns} {wants / MIB:13.0f} {slow}", flush=True)


def planned(path: Path, settings: EngineSettings, folder: Path) -> tuple[int, int]:
    """What the plan says nobody can take back in RAM, and what wants to stay with it."""
    from kvdesk.backend.gguf.model_file import read_model_file
    from kvdesk.backend.planning.calibration import Calibration
    from kvdesk.backend.planning.pricer import Pricer

    with Pricer(read_model_file(path), Calibration(folder / "calibration.json")) as pricer:
        ram = pricer.plan(settings, (), with_max=False).devices[0]
        return ram.must_hold_bytes, ram.working_set_bytes


@dataclass(frozen=True)
class Run:
    """How one run went: whether it was not killed, its time, and what its driver held before."""

    lived: bool
    took_s: float
    driver_bytes: int


def run(group: Group, path: Path, settings: EngineSettings, limit_bytes: int) -> Run:
    """Start an engine within ``limit_bytes`` and have it fill its whole context."""
    group.limit(limit_bytes)
    command = [sys.executable, "-m", "tests.bench.oom_line", "--drive", str(path), json.dumps(settings.to_dict())]

    def enter() -> None:
        (group.folder / "cgroup.procs").write_text("0")

    driver = subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        preexec_fn=enter,
    )  # fmt: skip
    assert driver.stdout is not None
    assert driver.stdin is not None
    driver.stdout.readline()
    held = group.anonymous_bytes()
    began = time.monotonic()
    try:
        driver.stdin.write("go\n")
        driver.stdin.flush()
        answer, _ = driver.communicate(timeout=PATIENCE_S)
        return Run("answered" in answer, time.monotonic() - began, held)
    except subprocess.TimeoutExpired:
        return Run(lived=True, took_s=PATIENCE_S, driver_bytes=held)
    except BrokenPipeError:
        return Run(lived=False, took_s=0.0, driver_bytes=held)
    finally:
        driver.kill()
        driver.wait()


def drive(path: Path, settings: str) -> int:
    """In the group: an engine, its context filled to the brim."""
    with tempfile.TemporaryDirectory() as folder:
        desk = Desk(Path(folder))
        print("ready", flush=True)
        sys.stdin.readline()
        asked = EngineSettings.from_dict(json.loads(settings))
        try:
            desk.engine.load(path, asked)
            desk.until(m.Started)
            Path(f"/proc/{desk.engine.pid}/oom_score_adj").write_text("1000")  # it is the one to go
            desk.until(m.Loaded, timeout_s=PATIENCE_S)
            print(fill(desk, asked.context.n_ctx), flush=True)
        except AssertionError as died:
            print("died", str(died)[:200], flush=True)
        desk.engine.shutdown()
    return 0


def fill(desk: Desk, n_ctx: int) -> str:
    """A conversation of TURNS turns that takes the whole context; how its last turn ended."""
    said: list[str] = []
    words = n_ctx // TURNS - 2 * REPLY_TOKENS
    short = SamplingSettings(temperature=0.0, max_tokens=REPLY_TOKENS)
    while True:
        before = len(desk.seen)
        desk.ask(*said, "the " * words, sampling=short)
        ended = desk.until(m.TurnFinished, m.Failed, timeout_s=PATIENCE_S)
        if isinstance(ended, m.TurnFinished):
            reply = "".join(one.text for one in desk.seen[before:] if isinstance(one, m.TextGenerated))
            said += ["the " * words, reply or "so"]
            if ended.kv.cells_used > n_ctx - n_ctx // TURNS // 2:
                return f"answered {ended.stats.prompt_tokens}"
        elif ended.prompt_tokens and words > 1:
            words //= 2  # the last turn takes what is left
        else:
            return f"answered {ended.prompt_tokens}" if ended.prompt_tokens else ended.sentence


if __name__ == "__main__":
    sys.exit(main())
