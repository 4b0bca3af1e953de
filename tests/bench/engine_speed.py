"""The engine against llama.cpp driven by the barest loop over the same libraries; a second turn; a context made anew.

    python -m tests.bench.engine_speed [--rounds 9] [--tokens 128] [--sentences 15] [--threads N]

Both sides are timed from outside the engine: from the wish to the first text, and from the first text to the last, pipe
and all. Rounds alternate; a figure is the median of the rounds' ratios, so that other work on the machine hits both.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import psutil

from kvdesk.backend.protocol import messages as m
from kvdesk.backend.settings import ContextSettings
from tests.bench.barest_loop import Barest, Speed
from tests.bench.kv_convert import starter
from tests.engine.harness import GREEDY, Desk

N_CTX = 4096
SENTENCE = (
    "The river ran past the mill and the old man counted the boats that came down from the hills, one after the other, "
    "while his daughter wrote their names into a long book. "
)


def story(number: int, n_sentences: int) -> str:
    """About 35 tokens a sentence that no other number shares beyond the first few."""
    return f"Story {number} of {number * 7919}. " + SENTENCE * n_sentences


def as_prompt(content: str) -> str:
    """What the engine makes of one user turn for a model without a chat template."""
    return f"User: {content.strip()}\nAssistant:"


def engine_speed(desk: Desk, content: str, n_tokens: int) -> Speed:
    """One turn, timed here."""
    begun, processor_s = time.perf_counter(), processor_of(desk.engine.pid)
    desk.ask(content, sampling=dataclasses.replace(GREEDY, max_tokens=n_tokens), conversation_id=content[:20])
    first = desk.until(m.TextGenerated)
    first_s = last_s = time.perf_counter()
    last: m.TextGenerated | m.TurnFinished = first
    while isinstance(last, m.TextGenerated):
        last_text, last_s = last, time.perf_counter()
        last = desk.until(m.TextGenerated, m.TurnFinished)
    stats = last.stats
    assert stats.completion_tokens == n_tokens, f"the reply ended after {stats.completion_tokens} tokens"
    read = stats.prompt_tokens - stats.reused_tokens
    return Speed(
        prompt_tokens=read,
        prompt_per_s=read / (first_s - begun),
        decode_per_s=(last_text.n_tokens - first.n_tokens) / (last_s - first_s),
        processor_s=processor_of(desk.engine.pid) - processor_s,
    )


def processor_of(pid: int | None) -> float:
    """Processor time that a process has used, in seconds."""
    times = psutil.Process(pid).cpu_times()
    return times.user + times.system


def show(what: str, figure: str, goal: str) -> None:
    """One line of the table."""
    print(f"{what:<58} {figure:>16}   {goal}", flush=True)


def ratio(what: str, ours: list[float], barest: list[float], unit: str, goal: str) -> None:
    """Median of the rounds' ratios, with the spread and the median speeds."""
    ratios = sorted(a / b for a, b in zip(ours, barest, strict=True))
    spread = f"{ratios[0]:.2f} to {ratios[-1]:.2f}"
    show(what, f"{median(ratios):.3f}", f"{goal} ({spread}; {median(ours):.1f} against {median(barest):.1f} {unit})")


def load_words() -> str:
    """How busy the machine is besides."""
    return f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores" if hasattr(os, "getloadavg") else ""


def against_barest(desk: Desk, model: Path, rounds: int, n_sentences: int, n_tokens: int, n_threads: int) -> None:
    ours: list[Speed] = []
    barest: list[Speed] = []
    with Barest(model, N_CTX, n_threads) as loop:
        for number in range(rounds + 1):
            content = story(number, n_sentences)
            sides = [
                lambda: ours.append(engine_speed(desk, content, n_tokens)),  # noqa: B023 - called at once
                lambda: barest.append(loop.run(as_prompt(content), n_tokens)),  # noqa: B023
            ]
            for side in sides if number % 2 else sides[::-1]:
                side()
            for name, speed in (("engine", ours[-1]), ("barest", barest[-1])):
                print(f"  {name} {speed.prompt_per_s:.1f} {speed.decode_per_s:.1f}", file=sys.stderr, flush=True)
    del ours[0], barest[0]  # the first round touches pages and starts threads
    print(f"{barest[0].prompt_tokens} tokens of prompt, {n_tokens} of reply, {rounds} rounds; {load_words()}")
    ratio("prompt, engine against the barest loop", *_pairs(ours, barest, "prompt_per_s"), "tok/s", ">= 0.97")
    ratio("decode, engine against the barest loop", *_pairs(ours, barest, "decode_per_s"), "tok/s", ">= 0.97")
    less = [[1 / one.processor_s for one in side] for side in (ours, barest)]
    ratio("both, by processor time (other work weighs less)", *less, "rounds/s", "")


def _pairs(a: list[Speed], b: list[Speed], field: str) -> tuple[list[float], list[float]]:
    return [getattr(one, field) for one in a], [getattr(one, field) for one in b]


def second_turn(desk: Desk) -> None:
    """2,000 tokens of history, then one more question: with the cells there, and read all again."""
    contents = [story(n, 18) for n in (101, 102, 103, 104)]
    ratios: list[tuple[float, float]] = []
    for number in range(3):
        history = [f"{number}. {contents[0]}", "I see.", *contents[1:2], "Yes.", *contents[2:3]]
        reply, _ = desk.answer(*history, conversation_id=f"h{number}")
        question = [*history, reply, "And who wrote the names?"]
        _, kept = desk.answer(*question, conversation_id=f"h{number}")
        desk.answer("Something else", conversation_id="other")
        _, again = desk.answer(*question, conversation_id=f"again{number}")
        ratios.append((kept.ttft_ms, again.ttft_ms))
        n_history = again.prompt_tokens
    kept_ms, again_ms = (median(side) for side in zip(*ratios, strict=True))
    show(
        f"second turn after {n_history:,} tokens, first token",
        f"{median(a / b for a, b in ratios):.4f}",
        f"<= 0.1 of reading again ({kept_ms:.0f} against {again_ms:.0f} ms)",
    )


def context_against_reload(desk: Desk, model: Path, settings: ContextSettings) -> None:
    """SetContext to another length, and a whole load, both with an empty context."""
    ratios: list[tuple[float, float]] = []
    for n_ctx in (8192, 4096, 8192):
        other = dataclasses.replace(settings, n_ctx=n_ctx)
        begun = time.perf_counter()
        desk.load(model, other)
        load_s = time.perf_counter() - begun
        begun = time.perf_counter()
        desk.engine.send(m.SetContext(dataclasses.replace(other, n_ctx=n_ctx // 2)))
        desk.until(m.ContextMade)
        ratios.append((time.perf_counter() - begun, load_s))
    made_ms, load_ms = (1e3 * median(side) for side in zip(*ratios, strict=True))
    show(
        "context made anew against a full reload",
        f"{median(a / b for a, b in ratios):.3f}",
        f"< 0.1 ({made_ms:.0f} against {load_ms:.0f} ms)",
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--sentences", type=int, default=15)
    parser.add_argument("--threads", type=int, default=psutil.cpu_count(logical=False) or 1)
    options = parser.parse_args()
    model = starter()
    settings = ContextSettings(n_ctx=N_CTX, n_threads=options.threads, allocation="reserve")
    with tempfile.TemporaryDirectory() as folder, Desk(Path(folder)) as desk:
        desk.load(model, settings)
        against_barest(desk, model, options.rounds, options.sentences, options.tokens, options.threads)
        second_turn(desk)
        context_against_reload(desk, model, settings)


if __name__ == "__main__":
    main()
