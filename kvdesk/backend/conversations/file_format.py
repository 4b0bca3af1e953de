"""Conversations as text files: Markdown for people, JSON for kvdesk. Pure: text in, text out; any thread.

JSON holds every branch and can be read back; Markdown holds the branch in view.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
from collections.abc import Iterable, Mapping
from typing import Any, cast

from kvdesk.backend.chat_format.thinking import split_reply
from kvdesk.backend.conversations.conversation import (
    ROLES,
    Conversation,
    Message,
    active_path,
    new_id,
    stats_to_dict,
)
from kvdesk.backend.conversations.read_values import stats_from, time_from
from kvdesk.backend.protocol.facts import TurnStats
from kvdesk.backend.sampling import SamplingSettings
from kvdesk.backend.settings import OVERFLOWS, EngineSettings
from kvdesk.errors import UsageError

FORMAT = "kvdesk-conversation"
VERSION = 1


def to_markdown(conversation: Conversation, messages: Iterable[Message]) -> str:
    """The branch in view as Markdown: title, day, system prompt, then one section per message with its figures."""
    day = dt.datetime.fromtimestamp(conversation.created_s).astimezone().date().isoformat()
    parts = [f"# {conversation.title or 'Conversation'}", day]
    if conversation.system_prompt.strip():
        parts += ["## System", conversation.system_prompt.strip()]
    for message in active_path(messages, conversation.active_leaf_id):
        name = f" ({message.model_name})" if message.model_name else ""
        parts.append(f"## {message.role.capitalize()}{name}")
        if message.thought:
            parts += ["<details><summary>Thought</summary>", message.thought, "</details>"]
        parts.append(message.content.strip())
        if figures := _figures(message):
            parts.append(f"*{figures}*")
    return "\n\n".join(part for part in parts if part) + "\n"


def to_json(conversation: Conversation, messages: Iterable[Message], *, with_draft: bool = False) -> str:
    """The whole conversation, every branch, as JSON that ``from_json`` reads; what is typed and not sent yet is nobody
    else's business."""
    engine = conversation.engine_settings
    head = {
        **{field.name: getattr(conversation, field.name) for field in dataclasses.fields(conversation)},
        "sampling": conversation.sampling.to_dict(),
        "engine_settings": engine.to_dict() if engine else None,
    }
    if not with_draft:
        del head["draft"]
    tree = [
        {
            **{field.name: getattr(message, field.name) for field in dataclasses.fields(message)},
            "stats": stats_to_dict(message.stats) if message.stats else None,
        }
        for message in messages
    ]
    document = {"format": FORMAT, "version": VERSION, "conversation": head, "messages": tree}
    return json.dumps(document, ensure_ascii=False, indent=2) + "\n"


def from_json(text: str, *, keep_ids: bool = False) -> tuple[Conversation, tuple[Message, ...]]:
    """The conversation in ``text`` and its messages, parents before children, all under new ids.

    With ``keep_ids`` it is a part of a conversation that is known: ids stay, and messages may answer some that are not in
    the file. Raises UsageError with a sentence that names what is wrong. Unknown keys and settings are ignored.
    """
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"This is no JSON file: {error}.") from error
    document = _dict(document, "The file")
    if document.get("format") != FORMAT:
        raise UsageError("This JSON file holds no kvdesk conversation.")
    if document.get("version") != VERSION:
        raise UsageError("This conversation was exported by a newer kvdesk; update kvdesk to read it.")
    head = _dict(document.get("conversation"), '"conversation"')
    messages, new_ids = _read_messages(document.get("messages"), keep_ids=keep_ids)
    leaf = head.get("active_leaf_id")
    newest = max(messages, key=lambda message: message.created_s).id if messages else None
    overflow = head.get("overflow")
    conversation = Conversation(
        id=_text(head, "id") if keep_ids else new_id(),
        title=_text(head, "title"),
        created_s=_time(head, "created_s"),
        updated_s=_time(head, "updated_s"),
        system_prompt=_text(head, "system_prompt"),
        sampling=_sampling(head.get("sampling")),
        engine_settings=_engine_settings(head.get("engine_settings")),
        overflow=overflow if overflow in OVERFLOWS else "ask",
        active_leaf_id=new_ids.get(leaf, leaf if keep_ids else newest) if isinstance(leaf, str) else newest,
        model_path=_text(head, "model_path") or None,
        draft=_text(head, "draft") if keep_ids else "",
    )
    return conversation, messages


def _figures(message: Message) -> str:
    parts: list[str] = []
    if message.stats:
        parts.append(f"{message.stats.completion_tokens} tokens")
        if message.stats.tokens_per_second is not None:
            parts.append(f"{message.stats.tokens_per_second:.1f} tok/s")
        parts.append(f"stop: {message.stats.stop_reason.value}")
    if message.stop_note:
        parts.append(message.stop_note)
    return ", ".join(parts)


def _read_messages(values: Any, *, keep_ids: bool) -> tuple[tuple[Message, ...], dict[str, str]]:
    """The messages, parents first, and the new id of each old one."""
    if not isinstance(values, list):
        raise UsageError('"messages" is not a list.')
    entries: dict[str, Mapping[str, Any]] = {}
    for number, value in enumerate(cast("list[Any]", values), 1):
        entry = _dict(value, f"Message {number}")
        if not isinstance(entry.get("id"), str) or entry["id"] in entries:
            raise UsageError(f"Message {number} has no id of its own.")
        if entry.get("role") not in ROLES:
            raise UsageError(f"Message {number} has the role {entry.get('role')!r}; possible: {', '.join(ROLES)}.")
        entries[entry["id"]] = entry
    new_ids = {old: old if keep_ids else new_id() for old in entries}
    messages: list[Message] = []
    for old in _parents_first(entries, is_part=keep_ids):
        entry = entries[old]
        thought, content = _text(entry, "thought"), _text(entry, "content")
        if entry["role"] == "assistant" and "thought" not in entry:  # of an older kvdesk: both in one
            earlier = split_reply(content)
            thought, content = earlier if earlier[0] else ("", content)
        message = Message(
            id=new_ids[old],
            parent_id=new_ids.get(entry["parent_id"], entry["parent_id"]) if entry.get("parent_id") else None,
            role=entry["role"],
            content=content,
            thought=thought,
            created_s=_time(entry, "created_s"),
            stats=_stats(entry.get("stats")),
            model_name=_text(entry, "model_name"),
            stop_note=_text(entry, "stop_note"),
            is_complete=entry.get("is_complete") is not False,
        )
        messages.append(message)
    return tuple(messages), new_ids


def _parents_first(entries: Mapping[str, Mapping[str, Any]], *, is_part: bool) -> list[str]:
    order: list[str] = []
    done: set[str] = set()
    for start in entries:
        branch: dict[str, None] = {}
        at: Any = start
        while at and not (isinstance(at, str) and (at in done or (is_part and at not in entries))):
            if not isinstance(at, str) or at not in entries or at in branch:
                raise UsageError(f"The messages are no tree: {at!r} is missing or answers itself.")
            branch[at] = None
            at = entries[at].get("parent_id")
        done.update(branch)
        order.extend(reversed(branch))
    return order


def _dict(value: Any, what: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise UsageError(f"{what} is not a JSON object.")
    return cast("dict[str, Any]", value)


def _text(values: Mapping[str, Any], key: str) -> str:
    value = values.get(key)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise UsageError(f'"{key}" is not a text.')
    return value.encode("utf-8", "replace").decode("utf-8")  # JSON can spell half a character ("\ud800")


def _time(values: Mapping[str, Any], key: str) -> float:
    try:
        return time_from(values.get(key))
    except ValueError as error:
        raise UsageError(f'"{key}" {error}.') from error


def _sampling(value: Any) -> SamplingSettings:
    return SamplingSettings.from_dict(_dict(value, '"sampling"')) if value else SamplingSettings()


def _engine_settings(value: Any) -> EngineSettings | None:
    return EngineSettings.from_dict(_dict(value, '"engine_settings"')) if value else None


def _stats(value: Any) -> TurnStats | None:
    if value is None:
        return None
    try:
        return stats_from(value)
    except ValueError as error:
        raise UsageError(f'"stats" cannot be read: {error}.') from error
