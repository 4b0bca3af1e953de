"""chat_format/limited_template.py: templates that would take for ever, or all memory, in a real process of their own."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from kvdesk.backend.chat_format.limited_template import LimitedTemplate, TemplateBeyondLimit, TemplateRefused
from kvdesk.backend.processes import template_process
from kvdesk.backend.protocol.facts import ChatTurn

TURNS = (ChatTurn("user", "hello \ud800 <|im_end|> \u00e9"),)
PLAIN = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}{{ bos_token }}{{ eos_token }}"
NESTED = "{% for a in range(90000) %}{% for b in range(90000) %}{% endfor %}{% endfor %}"
DOUBLING = "{% set n = namespace(s='x') %}{% for i in range(60) %}{% set n.s = n.s ~ n.s %}{% endfor %}{{ n.s }}"
BOMBS = {
    "a loop in a loop": (NESTED, "2 seconds"),
    "one power": ("{{ 9 ** (9 ** 9) }}", "2 seconds"),
    "one long text": ("{{ 'x' * 10 ** 10 }}", "memory"),
    "a text doubled": (DOUBLING, "memory"),
    "a text of blanks": ("{{ '%10000000000d' | format(1) }}", "memory"),
    "a text replaced": ("{{ ('x' * 10 ** 5).replace('x', 'y' * 10 ** 6) }}", "memory"),
    "much output": ("{% for i in range(90000) %}{{ 'x' * 200 }}{% endfor %}" + PLAIN, "8,000,000 characters"),
    "a macro that calls itself": ("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "without end"),
    "an expression in an expression": ("{{ " + "(" * 3000 + "1" + ")" * 3000 + " }}", "without end"),
    "no Jinja": ("one\n{% for %}", "line 2"),
    "a way out of the sandbox": ("{{ ''.__class__.__mro__[1].__subclasses__() }}" + PLAIN, "unsafe"),
}


@contextmanager
def opened(source: str, idle_s: float = template_process.IDLE_S) -> Iterator[LimitedTemplate]:
    template = LimitedTemplate(source, "<s>", "</s>", idle_s)
    try:
        yield template
    finally:
        template.close()


def test_a_text_comes_back_as_it_is_also_after_the_process_has_ended() -> None:
    with opened(PLAIN) as template:
        wanted = f"user: {TURNS[0].content}\n<s></s>"
        assert template.render(TURNS) == wanted
        template.close()
        assert template.render(TURNS) == wanted


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_becomes_a_sentence_while_it_is_tried_out(name: str) -> None:
    source, sentence = BOMBS[name]
    before = set(multiprocessing.active_children())
    with pytest.raises(TemplateRefused, match=sentence):
        LimitedTemplate(source, "", "")
    assert set(multiprocessing.active_children()) <= before


def test_a_bomb_that_waits_for_a_longer_conversation_ends_the_process_alone() -> None:
    with opened(PLAIN + "{% if messages | length > 4 %}" + NESTED + "{% endif %}") as template:
        with pytest.raises(TemplateBeyondLimit, match="2 seconds"):
            template.render(TURNS * 5)
        assert template.render(TURNS).startswith("user: hello")


def test_a_process_without_requests_ends_and_comes_back() -> None:
    with opened(PLAIN, idle_s=0.0) as template:
        assert template._process
        first = template._process.pid
        assert template._process.wait(30)
        assert template._process.exit_code == 0
        template._arguments = (*template._arguments[:3], template_process.IDLE_S)
        assert template.render(TURNS).startswith("user: hello")
        assert template._process.pid != first


def test_memory_is_watched_where_the_system_holds_to_no_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(template_process, "MEMORY_BYTES", 1)  # of this process; the child's limit stays
    with pytest.raises(TemplateBeyondLimit, match="memory"):
        LimitedTemplate(NESTED, "", "")


def test_a_process_that_has_ended_is_there_again_before_it_is_needed() -> None:
    with opened(PLAIN, idle_s=0.0) as template:
        assert template._process
        assert template._process.wait(30)
        template._arguments = (*template._arguments[:3], template_process.IDLE_S)
        template.warm()
        warmed = template._process.pid
        template.warm()
        assert template.render(TURNS).startswith("user: hello")
        assert template._process.pid == warmed
