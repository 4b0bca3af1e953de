"""chat_format/chat_format.py: what is learned of the real templates in llama.cpp's source, by rendering trial turns."""

from __future__ import annotations

from pathlib import Path

import pytest

from kvdesk.backend.chat_format.chat_format import ChatFormat, learn
from kvdesk.backend.chat_format.template import ChatTemplate
from kvdesk.backend.protocol.facts import ChatTurn
from tests.backend.chat_format.test_template import BEGINS_IN_A_THOUGHT, TEMPLATES

NO_END = {"openai-gpt-oss-120b"}
"""Its messages end with a mark that does not end the reply; the end of a reply is an end token of its vocabulary."""
ENDS = {
    "Qwen3.5-4B": "<|im_end|>",
    "GLM-4.7-Flash": "<|user|>",
    "MiniMax-M2": "[e~[",
    "poolside-Laguna-XS.2": "</assistant>",
    "Reka-Edge": "<sep>",
    "mistralai-Ministral-3-14B-Reasoning-2512": "</s>",
    "deepseek-ai-DeepSeek-V3.1": "<｜end▁of▁sentence｜>",
    "llama-cpp-rwkv-world": "\n\nUser:",
    "google-gemma-4-31B-it": "<turn|>",
}
NO_SWITCH = {
    "Apriel-1.6-15b-Thinker-fixed", "MiniMax-M2", "NVIDIA-Nemotron-Nano-v2", "StepFun3.5-Flash", "llama-cpp-deepseek-r1",
    "deepseek-ai-DeepSeek-R1-Distill-Llama-8B",
}  # fmt: skip
"""Their prompts leave a thought open whatever they are told."""
QUESTION = [ChatTurn("user", "why")]


def template(path: Path) -> ChatTemplate:
    return ChatTemplate(path.read_text("utf-8"), "<s>", "</s>")


def learned(stem: str) -> ChatFormat:
    return learn(template(next(path for path in TEMPLATES if path.stem == stem)))


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.stem)
def test_every_template_tells_what_it_is(path: Path) -> None:
    found = learn(template(path))
    assert ChatFormat.from_json(found.to_json()) == found
    assert found.open_at_start == (path.stem in BEGINS_IN_A_THOUGHT)
    assert found.system_role == (path.stem != "google-gemma-2-2b-it")
    assert len(found.ends) == (path.stem not in NO_END)


@pytest.mark.parametrize("stem", ENDS)
def test_the_end_of_a_reply_is_what_the_template_writes_after_one(stem: str) -> None:
    assert learned(stem).ends == (ENDS[stem],)


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.stem)
def test_thinking_can_be_turned_off(path: Path) -> None:
    asked = template(path)
    opened = learn(asked).marks.opened_in(asked.render(QUESTION, "off"))
    assert bool(opened) == (path.stem in NO_SWITCH)


@pytest.mark.parametrize(("stem", "thinking"), [("MiniMax-M3", "on"), ("ibm-granite-granite-3.3-2B-Instruct", "on")])
def test_thinking_can_be_turned_on(stem: str, thinking: str) -> None:
    asked = template(next(path for path in TEMPLATES if path.stem == stem))
    assert asked.render(QUESTION, thinking) != asked.render(QUESTION, "auto")


@pytest.mark.parametrize(
    ("stem", "pair"),
    [
        ("Qwen-Qwen3-0.6B", ("<think>", "</think>")),
        ("ByteDance-Seed-OSS", ("<seed:think>", "</seed:think>")),
        ("openai-gpt-oss-120b", ("<|channel|>analysis<|message|>", "<|end|>")),
        ("mistralai-Ministral-3-14B-Reasoning-2512", ("[THINK]", "[/THINK]")),
        ("meta-llama-Llama-3.1-8B-Instruct", None),
        ("Qwen-Qwen2.5-7B-Instruct", None),
    ],
)
def test_a_template_tells_what_is_around_its_thoughts(stem: str, pair: tuple[str, str] | None) -> None:
    assert learned(stem).thinking == pair


def test_variables_are_names_to_give_not_names_the_template_makes() -> None:
    source = (
        "{% set made = 1 %}{% if not known is defined %}{% set known = 2 %}{% endif %}{% set other = other | default(3) %}"
        "{% for m in messages %}{% set inner = m.content %}{{ inner }}{% endfor %}{{ made }}{{ known }}{{ given }}{{ range(2) }}"
    )
    assert learn(ChatTemplate(source, "", "")).variables == ("given", "known", "other")


def test_a_template_that_wants_turns_to_alternate_says_so() -> None:
    assert learned("google-gemma-2-2b-it").alternates
    assert not learned("Qwen3.5-4B").alternates


def test_content_as_parts_is_noticed() -> None:
    source = "{% for m in messages %}{% for part in m.content %}{{ part.text }}|{% endfor %}{% endfor %}"
    assert learn(ChatTemplate(source, "", "")).content_parts
