"""A model that thinks, in the window: thoughts folded and counted, kept apart from the answer, also after a restart."""

from __future__ import annotations

from pathlib import Path

from PySide6.QtWidgets import QPushButton

from kvdesk.backend.sampling import SamplingSettings
from kvdesk.backend.settings import ContextSettings
from tests.end2end.conftest import StartApp
from tests.end2end.person import Person
from tests.scripted_model import write_scripted
from tests.source_archive import llama_cpp_source

SCRIPT = ["<think>", "\n", "hm", "\n", "</think>", "\n\n", "Four.", "<|im_end|>"]


def thinking_buttons(person: Person) -> list[str]:
    buttons = person.window.transcript.findChildren(QPushButton, "thinking")
    return [button.text() for button in buttons if not button.isHidden()]


def test_thoughts_are_folded_counted_and_kept_apart(start_app: StartApp, tmp_path: Path) -> None:
    template = (llama_cpp_source() / "models" / "templates" / "Qwen-Qwen3-0.6B.jinja").read_text("utf-8")
    marks = {"control": ["<|im_start|>", "<|im_end|>"], "user": ["<think>", "</think>"], "eos": "<|im_end|>"}
    model = write_scripted(tmp_path / "thinker.gguf", SCRIPT, chat_template=template, **marks)
    context = ContextSettings(n_ctx=2048, n_threads=1)
    sampling = SamplingSettings(temperature=0.0, max_tokens=64)
    person = start_app(model, context=context, sampling=sampling)
    assert person.ask("two and two?") == "Four."
    assert person.ask("again?") == "Four."
    person.wait_until(lambda: len(thinking_buttons(person)) == 2)
    assert all(text.startswith("Thought") and text.endswith("tokens") for text in thinking_buttons(person))
    person.app.close()

    again = start_app(model, context=context, sampling=sampling)
    again.wait_until(lambda: again.messages == ["two and two?", "Four.", "again?", "Four."])
    again.wait_until(lambda: len(thinking_buttons(again)) == 2)
    assert again.ask("and again?") == "Four."
