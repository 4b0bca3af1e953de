"""chat_format/: the real templates in llama.cpp's source, each with a system prompt, three turns and a thought."""

from __future__ import annotations

from pathlib import Path

import pytest

from kvdesk.backend.chat_format.template import ChatTemplate
from kvdesk.backend.chat_format.thinking import marks_in
from kvdesk.backend.protocol.facts import ChatTurn
from tests.source_archive import llama_cpp_source

TEMPLATES = sorted((llama_cpp_source() / "models" / "templates").glob("*.jinja"))
TURNS = (
    ChatTurn("user", "first question"),
    ChatTurn("assistant", "first answer", "first thought"),
    ChatTurn("user", "second question"),
    ChatTurn("assistant", "second answer", "second thought"),
    ChatTurn("user", "third question"),
)
ORDER = [turn.content for turn in TURNS]
SYSTEM = ChatTurn("system", "be brief")
KNOWS_NO_SYSTEM = {"google-gemma-2-2b-it"}
BEGINS_IN_A_THOUGHT = {
    "Apriel-1.6-15b-Thinker-fixed", "Bielik-11B-v3.0-Instruct", "Cohere2MoE", "GLM-4.7-Flash", "Kimi-K3", "MiniMax-M2",
    "NVIDIA-Nemotron-3-Nano-30B-A3B-BF16", "NVIDIA-Nemotron-Nano-v2", "Qwen-QwQ-32B", "Qwen3.5-4B", "Reka-Edge", "Spark2.5",
    "StepFun3.5-Flash", "deepseek-ai-DeepSeek-R1-Distill-Llama-8B", "deepseek-ai-DeepSeek-R1-Distill-Qwen-32B",
    "deepseek-ai-DeepSeek-V3.1", "deepseek-ai-DeepSeek-V3.2", "deepseek-ai-DeepSeek-V4", "deepseek-ai-DeepSeek-V4-Flash-0731",
    "inclusionai-ling-3.0-flash", "llama-cpp-deepseek-r1", "llama-cpp-rwkv-world", "openbmb-MiniCPM5-1B",
    "poolside-Laguna-S-2.1", "poolside-Laguna-XS-2.1", "poolside-Laguna-XS.2",
}  # fmt: skip


def _template(path: Path) -> ChatTemplate:
    return ChatTemplate(path.read_text("utf-8"), "<s>", "</s>")


def test_there_are_many_templates() -> None:
    assert len(TEMPLATES) >= 70


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.stem)
def test_nothing_said_is_lost_doubled_or_out_of_order(path: Path) -> None:
    template = _template(path)
    text = template.render(TURNS if path.stem in KNOWS_NO_SYSTEM else (SYSTEM, *TURNS))
    places = [text.index(content) for content in ORDER]
    assert places == sorted(places)
    assert [text.count(content) for content in ORDER] == [1] * len(ORDER)


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.stem)
def test_a_prompt_that_leaves_a_thought_open_is_noticed(path: Path) -> None:
    opened = marks_in(path.read_text("utf-8")).opened_in(_template(path).render(TURNS))
    assert bool(opened) == (path.stem in BEGINS_IN_A_THOUGHT)


@pytest.mark.parametrize("stem", sorted(KNOWS_NO_SYSTEM))
def test_a_template_that_knows_no_system_prompt_says_so(stem: str) -> None:
    with pytest.raises(Exception, match=r"[Ss]ystem"):
        _template(next(path for path in TEMPLATES if path.stem == stem)).render((SYSTEM, *TURNS))


def test_a_system_prompt_is_never_left_out_silently() -> None:
    template = ChatTemplate("{% for m in messages if m.role != 'system' %}{{ m.content }}{% endfor %}", "", "")
    with pytest.raises(ValueError, match="system prompt"):
        template.render((SYSTEM, *TURNS))


def test_content_goes_as_typed_parts_where_the_template_wants_them() -> None:
    source = "{% for m in messages %}{% for part in m.content %}{{ part.text }}|{% endfor %}{% endfor %}"
    assert ChatTemplate(source, "", "").render(TURNS) == "|".join(ORDER) + "|"
