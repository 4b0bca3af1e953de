"""``kvdesk template``: the prompt that a model's chat template makes, its tokens, and what was learned of the format.

Loads the vocabulary alone, in a process of its own (backend/processes/prompt_process.py).
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from kvdesk.commands.flags import add_flags
from kvdesk.errors import EngineError, UsageError
from kvdesk.terminal import say, say_beside, say_json

if TYPE_CHECKING:
    from kvdesk.backend.processes.prompt_process import Rendered, RenderPrompt
    from kvdesk.backend.protocol.facts import ChatTurn, TemplateChoice

WAIT_S = 60.0
"""How long a vocabulary may take to load; a quarter of a million tokens take a second."""
ROLES = ("system", "user", "assistant")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags."""
    parser.add_argument("model", type=Path, help="a GGUF file (of a split model: its first part)")
    parser.add_argument(
        "--chat-template",
        metavar="FILE|NAME",
        help="another template: a Jinja file, a built-in one of llama.cpp's (chatml, ...), or plain",
    )
    parser.add_argument(
        "--messages", type=Path, metavar="FILE", help="JSON: a list of objects with role, content, reasoning_content"
    )
    parser.add_argument("--reply", type=Path, metavar="FILE", help="a raw reply, to be told apart")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    add_flags(parser, "thinking")


def run(args: argparse.Namespace) -> int:
    """Print the prompt. Raises KvdeskError with the sentence to print."""
    from kvdesk.backend.gguf.header import read_header
    from kvdesk.backend.processes.prompt_process import RenderPrompt
    from kvdesk.backend.protocol.facts import ChatTurn
    from kvdesk.backend.text_file import read_text

    path = args.model.absolute()
    read_header(path)  # says what is wrong with a file that is no model
    template = template_choice(args.chat_template)
    turns = _turns(args.messages) if args.messages else (ChatTurn("user", "Hello!"),)
    question = RenderPrompt(
        str(path),
        turns,
        template.source,
        template.builtin,
        args.thinking or "auto",
        read_text(args.reply).encode() if args.reply else None,
    )
    rendered = _ask(question)
    if args.json:
        say_json(_report(rendered, has_reply=question.reply is not None))
    else:
        _print(rendered, has_reply=question.reply is not None)
    return 0


def template_choice(chosen: str | None) -> TemplateChoice:
    """What ``--chat-template`` names: a file that is there, else a built-in template. Raises UsageError."""
    from kvdesk.backend.protocol.facts import TemplateChoice
    from kvdesk.backend.text_file import read_text

    if chosen and Path(chosen).exists():
        return TemplateChoice(source=read_text(Path(chosen)))
    return TemplateChoice(builtin=chosen or "")


def _turns(path: Path) -> tuple[ChatTurn, ...]:
    """The messages in ``path``. Raises UsageError that names what is wrong with which."""
    from kvdesk.backend.protocol.facts import ChatTurn
    from kvdesk.backend.text_file import read_text

    try:
        messages: Any = json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path.name} is no JSON: {error}.") from error
    if not isinstance(messages, list) or not messages:
        raise UsageError(f"{path.name} is no list of messages.")
    turns: list[ChatTurn] = []
    for number, message in enumerate(cast("list[Any]", messages), 1):
        where = f"Message {number} in {path.name}"
        if not isinstance(message, dict):
            raise UsageError(f"{where} is no object with role and content.")
        fields = cast("dict[str, Any]", message)
        role, content, thought = (fields.get(key, "") for key in ("role", "content", "reasoning_content"))
        if role not in ROLES:
            raise UsageError(f"{where} has the role {role!r}; known are {', '.join(ROLES)}.")
        if not isinstance(content, str) or not isinstance(thought, str):
            raise UsageError(f"{where} has a content that is no text.")
        turns.append(ChatTurn(role, content, thought))
    return tuple(turns)


def _ask(question: RenderPrompt) -> Rendered:
    from multiprocessing.connection import wait

    from kvdesk import paths
    from kvdesk.backend.processes.prompt_process import NotRendered, Rendered, prompt_main
    from kvdesk.backend.system.child_process import ChildProcess

    log_path = paths.log_dir() / "template.log"
    process = ChildProcess(prompt_main, "kvdesk prompt", str(log_path), question)
    try:
        wait([process.connection, process.sentinel], WAIT_S)
        answer = process.connection.recv() if process.connection.poll() else None
    except (EOFError, OSError):
        answer = None
    finally:
        process.end(0.0)
    if isinstance(answer, NotRendered):
        raise answer.error
    if not isinstance(answer, Rendered):
        raise EngineError(f"llama.cpp failed on this vocabulary; {log_path} says more.")
    return answer


def _report(rendered: Rendered, *, has_reply: bool) -> dict[str, Any]:
    """The JSON contract: keys stay once they are named."""
    learned = rendered.format
    opens, closes = learned.thinking or ("", "")
    report: dict[str, Any] = {
        "text": rendered.text,
        "tokens": list(rendered.tokens),
        "n_tokens": len(rendered.tokens),
        "format": {
            "thinking": {"opens": opens, "closes": closes, "open_at_start": learned.open_at_start},
            "ends": list(learned.ends),
            "system_role": learned.system_role,
            "content_parts": learned.content_parts,
            "alternates": learned.alternates,
            "variables": list(learned.variables),
        },
        "warnings": list(rendered.warnings),
    }
    if has_reply:
        report |= {
            "reasoning": rendered.thought,
            "content": rendered.answer,
            "ended": bool(rendered.ended_by),
        }
    return report


def _print(rendered: Rendered, *, has_reply: bool) -> None:
    learned = rendered.format
    for warning in rendered.warnings:
        say_beside(f"kvdesk template: {warning}")
    if has_reply:
        say(f"thought: {rendered.thought}\nanswer: {rendered.answer}")
        say_beside(f"[ended by {rendered.ended_by!r}]" if rendered.ended_by else "[not ended]")
        return
    say(rendered.text)
    around = " ... ".join(learned.thinking) if learned.thinking else "none"
    state = ", open at the start" if learned.open_at_start else ""
    say_beside(
        f"[{len(rendered.tokens)} tokens, thinking: {around}{state}, ends: {', '.join(learned.ends) or 'none learned'}, "
        f"system role: {'yes' if learned.system_role else 'no'}, variables: {', '.join(learned.variables) or 'none'}]"
    )
