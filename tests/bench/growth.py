"""What growing costs, what it saves, and what keeping the cells of conversations is worth. Starter and a tiny llama.

python -m tests.bench.growth [--rounds 5] [--tokens 1000] [--threads N]
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
import time
from pathlib import Path
from statistics import median

import psutil

from kvdesk.backend.protocol import messages as m
from kvdesk.backend.protocol.facts import ChatTurn, GrowStep
from kvdesk.backend.settings import ContextSettings
from tests.bench.engine_speed import load_words, processor_of, show, story
from tests.bench.kv_convert import starter
from tests.engine.harness import GREEDY, Desk
from tests.tiny_models import write_tiny

LONG = 32_768


def growth_step(desk: Desk, model: Path, settings: ContextSettings, rounds: int) -> None:
    """2,048 cells, 1,500 of them full, then a batch that does not fit; beside it, an empty context of 4,096 made anew."""
    steps: list[GrowStep] = []
    bare: list[float] = []
    for number in range(rounds):
        desk.load(model, dataclasses.replace(settings, allocation="reserve", n_ctx=2048))
        begun = time.perf_counter()
        desk.engine.send(m.SetContext(dataclasses.replace(settings, allocation="reserve", n_ctx=4096)))
        desk.until(m.ContextMade)
        bare.append(1e3 * (time.perf_counter() - begun))
        desk.engine.send(m.SetContext(dataclasses.replace(settings, n_ctx=4096, initial_ctx=2048)))
        desk.until(m.ContextMade)
        first = story(number, 43)
        reply, stats = desk.answer(first)
        occupied = stats.prompt_tokens + stats.completion_tokens
        assert 1536 < occupied < 1650, occupied
        desk.answer(first, reply, story(number + 50, 18))
        steps.append(desk.of(m.Grown)[-1].step)
    assert all((step.from_cells, step.to_cells) == (2048, 4096) for step in steps), steps
    ms = median(step.ms for step in steps)
    show(
        f"2,048 to 4,096 cells with {steps[0].at_tokens:,} occupied, beside the making",
        f"{median(step.ms - made for step, made in zip(steps, bare, strict=True)):.0f} ms",
        f"< 150 ms ({ms:.0f} in all, of which making the context {median(bare):.0f})",
    )


def decode_with_growth(desk: Desk, settings: ContextSettings, rounds: int, n_tokens: int) -> None:
    """The same reply with 256 cells at first, growing to hold it, and with all reserved."""
    sampling = dataclasses.replace(GREEDY, max_tokens=n_tokens)
    ratios: list[float] = []
    lighter: list[float] = []
    n_steps = 0
    for number in range(rounds):
        speeds: dict[str, float] = {}
        processor: dict[str, float] = {}
        texts: set[str] = set()
        for allocation in ("grow", "reserve") if number % 2 else ("reserve", "grow"):
            desk.answer("Forget that.", conversation_id="other")  # or the new context would be made for those cells
            context = dataclasses.replace(settings, n_ctx=4096, initial_ctx=256, allocation=allocation)
            desk.engine.send(m.SetContext(context))
            desk.until(m.ContextMade)
            processor_s = processor_of(desk.engine.pid)
            before = len(desk.of(m.Grown))
            text, stats = desk.answer(story(number, 6), sampling=sampling)
            texts.add(text)
            assert stats.tokens_per_second is not None
            speeds[allocation] = stats.tokens_per_second
            processor[allocation] = processor_of(desk.engine.pid) - processor_s
            n_steps = max(n_steps, len(desk.of(m.Grown)) - before)
            n_made = stats.completion_tokens
        assert len(texts) == 1, "growth changed the reply"
        ratios.append(speeds["grow"] / speeds["reserve"])
        lighter.append(processor["reserve"] / processor["grow"])
    spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
    show(
        f"decode of {n_made:,} tokens, growing {n_steps} times, against reserved",
        f"{median(ratios):.3f}",
        f">= 0.97 ({spread}; by processor time {median(lighter):.3f})",
    )


def held(desk: Desk, model: Path, name: str, goal: str, n_threads: int) -> None:
    """KV bytes allocated with 1,000 tokens at a Context Length of 32,768: growing against reserved."""
    sizes: dict[str, int] = {}
    occupied = 0
    text = story(1, 60)
    for allocation in ("reserve", "grow"):
        desk.load(model, ContextSettings(n_ctx=LONG, n_threads=n_threads, allocation=allocation))
        if allocation == "grow":
            words = text.split()
            n_words = len(words)
            desk.engine.send(m.CountTokens(1, (ChatTurn("user", text),)))
            n_words = 1000 * n_words // desk.until(m.TokensCounted).n_tokens
            desk.answer(" ".join(words[:n_words]))
        kv = desk.of(m.TurnFinished)[-1].kv if allocation == "grow" else desk.of(m.Loaded)[-1].context.kv
        sizes[allocation] = kv.bytes_allocated
        occupied = kv.cells_used
    show(
        f"KV allocated at 32,768 with {occupied:,} tokens, {name}",
        f"{sizes['grow'] / sizes['reserve']:.3f}",
        f"{goal} ({sizes['grow'] / 2**20:.2f} against {sizes['reserve'] / 2**20:.2f} MiB)",
    )


def switching(folder: Path, model: Path, settings: ContextSettings, rounds: int) -> None:
    """Back to a conversation of 2,000 tokens, after another one and after a restart, against reading it all."""
    switched: list[float] = []
    restarted: list[float] = []
    for number in range(rounds):
        history = [story(number, 56)]
        kept = folder / f"kept{number}"
        with Desk(folder, kept) as desk:
            desk.load(model, settings)
            reply, read = desk.answer(*history, conversation_id="one")
            desk.answer("Something else altogether.", conversation_id="two")
            _, back = desk.answer(*history, reply, "Go on.", conversation_id="one")
            assert back.reused_tokens > 1500, back
        with Desk(folder, kept) as desk:
            desk.load(model, settings)
            _, again = desk.answer(*history, reply, "Go on.", conversation_id="one")
            assert again.reused_tokens > 1500, again
        switched.append(back.ttft_ms / read.ttft_ms)
        restarted.append(again.ttft_ms / read.ttft_ms)
    n, ms = read.prompt_tokens, f"{back.ttft_ms:.0f} and {again.ttft_ms:.0f} against {read.ttft_ms:.0f} ms"
    show(f"switch back to {n:,} tokens, first token", f"{median(switched):.4f}", f"<= 0.1 of rereading ({ms})")
    show("the same after a restart", f"{median(restarted):.4f}", "<= 0.1 of rereading")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=1000)
    parser.add_argument("--threads", type=int, default=psutil.cpu_count(logical=False) or 1)
    options = parser.parse_args()
    model = starter()
    settings = ContextSettings(n_ctx=4096, n_threads=options.threads)
    print(f"{options.threads} threads; {load_words()}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with Desk(folder) as desk:
            desk.load(model, settings)
            growth_step(desk, model, settings, options.rounds)
            held(desk, model, "starter", "<= 0.25", options.threads)
            held(desk, write_tiny("llama", folder, n_ctx_train=LONG), "tiny llama", "<= 0.1", options.threads)
            desk.load(model, settings)
            decode_with_growth(desk, settings, min(options.rounds, 3), options.tokens)
        switching(folder, model, settings, min(options.rounds, 3))


if __name__ == "__main__":
    main()
