"""Every sampler on the real starter: it has an effect, it repeats itself with its seed, it says what it cannot do."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kvdesk.backend.protocol import messages as m
from kvdesk.backend.protocol.facts import ChatTurn, StopReason
from kvdesk.backend.sampling import SamplingSettings
from kvdesk.backend.settings import ContextSettings
from tests.engine.harness import Desk
from tests.scripted_model import write_scripted
from tests.source_archive import llama_cpp_source
from tests.tiny_models import write_tiny

OPEN = SamplingSettings(
    temperature=1.5, top_k=0, top_p=1.0, min_p=0.0, repeat_last_n=64, seed=7, max_tokens=12, thinking="off"
)
"""Nothing is left out, so that whatever a sampler leaves out or puts in shows."""
SAMPLERS: dict[str, dict[str, Any]] = {
    "top-k": {"top_k": 2},
    "top-p": {"top_p": 0.3},
    "min-p": {"min_p": 0.5},
    "typical": {"typical_p": 0.2},
    "top-n-sigma": {"top_n_sigma": 0.5},
    "xtc": {"xtc_probability": 1.0, "xtc_threshold": 0.02},
    "dynatemp": {"dynatemp_range": 1.4, "dynatemp_exponent": 2.0},
    "mirostat-1": {"mirostat": "1", "mirostat_tau": 2.0},
    "mirostat-2": {"mirostat": "2", "mirostat_tau": 2.0},
    "repeat": {"repeat_penalty": 3.0},
    "presence": {"presence_penalty": 2.0, "temperature": 0.0},
    "frequency": {"frequency_penalty": 2.0, "temperature": 0.0},
    "bias": {"logit_bias": ("2=-inf", "hello=9", "7=1.5")},
}
REPEATING = "Write exactly this and nothing else, many times: one two three one two three one two three one two three"


@pytest.fixture(scope="module")
def desk(starter: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    with Desk(tmp_path_factory.mktemp("samplers")) as desk:
        desk.load(starter, ContextSettings(n_ctx=1024, n_threads=2))
        yield desk


def reply(desk: Desk, sampling: SamplingSettings, question: str = REPEATING) -> str:
    return desk.answer(question, sampling=sampling)[0]


@pytest.mark.parametrize("name", SAMPLERS)
def test_it_has_an_effect_and_repeats_itself_with_its_seed(desk: Desk, name: str) -> None:
    sampling = dataclasses.replace(OPEN, **SAMPLERS[name])
    neutral = dataclasses.replace(OPEN, temperature=sampling.temperature)
    told = reply(desk, sampling)
    assert reply(desk, sampling) == told
    assert reply(desk, neutral) != told


def going_on(desk: Desk, sampling: SamplingSettings) -> str:
    """How the starter goes on with a reply that repeats itself."""
    turns = (ChatTurn("user", "Count."), ChatTurn("assistant", "one two three " * 8 + "one two"))
    since = len(desk.seen)
    desk.engine.send(m.Generate(1000 + since, "r", turns, sampling, continue_last=True))
    desk.until(m.TurnFinished)
    return "".join(event.text for event in desk.seen[since:] if isinstance(event, m.TextGenerated))


def test_dry_ends_a_repetition_unless_a_breaker_is_in_it(desk: Desk) -> None:
    greedy = SamplingSettings(temperature=0.0, max_tokens=12)
    dry = dataclasses.replace(greedy, dry_multiplier=5.0)
    assert going_on(desk, greedy).count("one two three") == 3
    assert "one two three" not in going_on(desk, dry)
    broken = dataclasses.replace(dry, dry_sequence_breakers=(" one", " two", " three"))
    assert going_on(desk, broken) == going_on(desk, greedy)


@pytest.mark.parametrize("temperature", [0.0, 1.5])
def test_an_answer_follows_its_grammar(desk: Desk, temperature: float) -> None:
    sampling = dataclasses.replace(OPEN, temperature=temperature, grammar='root ::= "maybe" | "certainly not"')
    text, stats = desk.answer("Is the earth flat?", sampling=sampling)
    assert text in ("maybe", "certainly not")
    assert stats.stop_reason is StopReason.EOS
    assert reply(desk, sampling, "Is the earth flat?") == text


def test_an_answer_follows_a_json_schema(desk: Desk) -> None:
    schema = {
        "type": "object",
        "properties": {"colour": {"enum": ["red", "green"]}, "sure": {"type": "boolean"}},
        "required": ["colour", "sure"],
        "additionalProperties": False,
    }
    text = reply(desk, dataclasses.replace(OPEN, grammar=json.dumps(schema), max_tokens=200), "Pick a colour.")
    value = json.loads(text)
    assert value["colour"] in ("red", "green")
    assert isinstance(value["sure"], bool)


@pytest.mark.parametrize(
    ("sampling", "said"),
    [
        ({"grammar": 'root ::= "a"\nnext ::= ('}, "in line 2"),
        ({"grammar": "root ::= other\n"}, "Undefined rule identifier 'other'"),
        ({"grammar": 'other ::= "a"'}, "root"),
        ({"grammar": 'root ::= root "a"'}, "left recursion"),
        ({"grammar": '{"$ref": "#/nowhere"}'}, "The JSON schema cannot be made a grammar"),
        ({"logit_bias": ("99999999=1",)}, "names no token"),
        ({"logit_bias": ("cat",)}, "is not TOKEN=BIAS"),
    ],
)
def test_what_cannot_be_used_is_said_and_nothing_is_read(desk: Desk, sampling: dict[str, Any], said: str) -> None:
    before = len(desk.seen)
    desk.ask("hello", sampling=dataclasses.replace(OPEN, **sampling))
    failed = desk.until(m.Failed)
    assert failed.kind == "SettingsError"
    assert said in failed.sentence
    assert failed.sentence.endswith(".")
    assert not any(isinstance(event, m.PromptProgress) for event in desk.seen[before:])
    assert reply(desk, SamplingSettings(temperature=0.0, max_tokens=4))  # and the next message is answered


THINKER = ["<think>", "\n", "a", "b", "c", "d", "e", "f", "\n", "</think>", "\n\n", "Four.", "<|im_end|>"]


def thinker(desk: Desk, folder: Path) -> None:
    template = (llama_cpp_source() / "models" / "templates" / "Qwen-Qwen3-0.6B.jinja").read_text("utf-8")
    marks = {"control": ["<|im_start|>", "<|im_end|>"], "user": ["<think>", "</think>"], "eos": "<|im_end|>"}
    path = write_scripted(folder / "thinker.gguf", THINKER, chat_template=template, order=2, **marks)
    desk.load(path, ContextSettings(n_ctx=1024, n_threads=1))


def thought(desk: Desk, since: int) -> str:
    return "".join(event.thought for event in desk.seen[since:] if isinstance(event, m.TextGenerated)).strip()


@pytest.mark.parametrize(("budget", "expected"), [(-1, "abcdef"), (4, "ab"), (1, ""), (0, "")])
def test_a_thought_that_has_taken_its_budget_is_closed(tmp_path: Path, budget: int, expected: str) -> None:
    with Desk(tmp_path) as desk:
        thinker(desk, tmp_path)
        sampling = SamplingSettings(temperature=0.0, max_tokens=64, thinking="on", thinking_budget=budget)
        for _ in range(2):
            since = len(desk.seen)
            text, stats = desk.answer("two and two?", sampling=sampling)
            assert (thought(desk, since), text) == (expected, "Four.")
            assert stats.stop_reason is StopReason.EOS


def test_thoughts_are_free_of_the_grammar(tmp_path: Path) -> None:
    with Desk(tmp_path) as desk:
        thinker(desk, tmp_path)
        opened = "Keep thinking."
        sampling = SamplingSettings(temperature=0.0, max_tokens=64, thinking="on", grammar='root ::= "Four" "."')
        desk.engine.send(
            m.Generate(
                77,
                "c",
                (ChatTurn("user", opened), ChatTurn("assistant", "", "a")),
                sampling,
                continue_last=True,
            )
        )
        finished = desk.until(m.TurnFinished)
        text = "".join(event.text for event in desk.seen if isinstance(event, m.TextGenerated))
        assert (thought(desk, 0), text) == ("bcdef", "Four.")
        assert finished.stats.stop_reason is StopReason.EOS


def test_what_a_file_recommends_is_told(tmp_path: Path) -> None:
    keys = {"/general.sampling.temp": 0.6, "/general.sampling.top_k": 20, "/general.sampling.mirostat": 0}
    with Desk(tmp_path) as desk:
        loaded = desk.load(write_tiny("llama", tmp_path, **keys))
        assert dict(loaded.model.recommended_sampling) == {"temperature": 0.6, "top_k": 20, "mirostat": "off"}
