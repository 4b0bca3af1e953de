"""Conversations as values: messages form a tree, an edit or a new reply is a new branch, nothing is overwritten.

Pure: no storage (store.py), no files (conversations/file_format.py), no engine. Any thread. Times are seconds since the epoch.
"""

from __future__ import annotations

import dataclasses
import re
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from kvdesk.backend.protocol.facts import ChatTurn, TurnStats
from kvdesk.backend.sampling import SamplingSettings
from kvdesk.backend.settings import EngineSettings

ROLES: tuple[str, ...] = ("user", "assistant")
TITLE_LENGTH = 60
_MARKS = re.compile(r"^(?:(?:#+|>|[*-])(?: |$))+|\*\*|`+")  # heading, quotation and list marks; bold; code
DEFAULT_SAMPLING = SamplingSettings()


@dataclass(frozen=True)
class Message:
    """One message of a conversation. ``parent_id`` is the message it answers, None for the first.

    ``is_complete`` is False while a reply is being written, and stays so when the app was killed meanwhile.
    ``stop_note`` says in words why a reply ended early; ``stats``, ``model_name`` and ``thought``, what the model thought
    before it answered, belong to replies.
    """

    id: str
    parent_id: str | None
    role: str
    content: str
    created_s: float
    stats: TurnStats | None = None
    model_name: str = ""
    stop_note: str = ""
    is_complete: bool = True
    thought: str = ""


@dataclass(frozen=True)
class Conversation:
    """A conversation without its messages. ``active_leaf_id`` is the end of the branch in view.

    ``engine_settings`` is None while the conversation has none of its own and takes the model's.
    ``title`` is empty until the first message names it. ``draft`` is what is typed and not sent yet.
    """

    id: str
    title: str
    created_s: float
    updated_s: float
    system_prompt: str = ""
    sampling: SamplingSettings = DEFAULT_SAMPLING
    engine_settings: EngineSettings | None = None
    overflow: str = "ask"
    active_leaf_id: str | None = None
    model_path: str | None = None
    draft: str = ""


@dataclass(frozen=True)
class ConversationRow:
    """A conversation as lists show it. ``draft`` stands for a title while there is none; ``excerpt`` is the line that a search found, "" where the title was found;
    ``snapshot_bytes`` what its kept KV cache takes on disk, None where it has none or nobody looked."""

    id: str
    title: str
    updated_s: float
    model_path: str | None = None
    draft: str = ""
    excerpt: str = ""
    snapshot_bytes: int | None = None


def new_id() -> str:
    """An id that no other conversation or message has."""
    return uuid.uuid4().hex


def new_conversation(now_s: float, **fields: Any) -> Conversation:
    """An empty conversation made at ``now_s``; ``fields`` as in Conversation."""
    return dataclasses.replace(Conversation(id=new_id(), title="", created_s=now_s, updated_s=now_s), **fields)


def new_message(role: str, content: str, parent_id: str | None, now_s: float, **fields: Any) -> Message:
    """A message made at ``now_s``. An edit or a regenerated reply is a new one with the parent of the old."""
    if role not in ROLES:
        raise ValueError(role)
    return Message(id=new_id(), parent_id=parent_id, role=role, content=content, created_s=now_s, **fields)


def moved_to(
    new_conversation_id: str, conversation: Conversation, messages: Iterable[Message]
) -> tuple[Conversation, tuple[Message, ...]]:
    """The same text as another conversation. A message's new id follows from its old one and the conversation's: whoever
    moves it, and however much of it at a time, comes to the same."""
    namespace = uuid.UUID(new_conversation_id)

    def moved(message_id: str | None) -> str | None:
        return uuid.uuid5(namespace, message_id).hex if message_id else None

    return (
        dataclasses.replace(conversation, id=new_conversation_id, active_leaf_id=moved(conversation.active_leaf_id)),
        tuple(
            dataclasses.replace(message, id=uuid.uuid5(namespace, message.id).hex, parent_id=moved(message.parent_id))
            for message in messages
        ),
    )


def active_path(messages: Iterable[Message], leaf_id: str | None) -> tuple[Message, ...]:
    """The branch that ends in ``leaf_id``, first message first.

    Empty for None; when ``leaf_id`` is not among ``messages``, the branch of the newest message.
    """
    known = {message.id: message for message in messages}
    if leaf_id is None or not known:
        return ()
    message = known.get(leaf_id) or max(known.values(), key=lambda m: m.created_s)
    path: list[Message] = []
    seen: set[str] = set()
    while message is not None and message.id not in seen:
        seen.add(message.id)
        path.append(message)
        message = known.get(message.parent_id or "")
    return tuple(reversed(path))


def siblings(messages: Iterable[Message], message: Message) -> tuple[Message, ...]:
    """``message`` and the other versions of it (those with the same parent and role), oldest first."""
    found = [m for m in messages if m.parent_id == message.parent_id and m.role == message.role]
    return tuple(sorted(found, key=lambda m: m.created_s))


def newest_leaf(messages: Iterable[Message], message_id: str) -> str:
    """Where the branch through ``message_id`` ends, taking the newest way at every fork: what to show on a switch."""
    children: dict[str | None, list[Message]] = {}
    for message in messages:
        children.setdefault(message.parent_id, []).append(message)
    seen: set[str] = set()
    while message_id in children and message_id not in seen:
        seen.add(message_id)
        message_id = max(children[message_id], key=lambda m: m.created_s).id
    return message_id


def to_turns(conversation: Conversation, path: Iterable[Message]) -> tuple[ChatTurn, ...]:
    """What the engine is asked to answer: the system prompt, if there is one, and the messages of ``path``.

    Replies of which nothing was written are left out, but for a last one that was cut off in its thoughts, and what two
    neighbours of one role say is joined: many chat templates refuse turns that do not alternate.
    """
    turns: list[ChatTurn] = []
    path = tuple(path)
    if conversation.system_prompt.strip():
        turns.append(ChatTurn("system", conversation.system_prompt))
    for message in path:
        is_cut_off = message is path[-1] and message.thought
        if message.role == "assistant" and not message.content and not is_cut_off:
            continue
        if turns and turns[-1].role == message.role:
            joined = f"{turns[-1].content}\n\n{message.content}"
            turns[-1] = ChatTurn(message.role, joined, message.thought or turns[-1].thought)
        else:
            turns.append(ChatTurn(message.role, message.content, message.thought))
    return tuple(turns)


def title_of(text: str) -> str:
    """A title from the first user message: its first line with words in it, without Markdown's marks, cut at a word."""
    lines = (_MARKS.sub("", " ".join(line.split())) for line in text.splitlines())
    line = next((line for line in lines if line), "")
    if len(line) <= TITLE_LENGTH:
        return line
    head = line[: TITLE_LENGTH - 1]
    cut = head.rsplit(" ", 1)[0] if " " in head[TITLE_LENGTH // 2 :] else head
    return cut.rstrip(" ,.;:") + "…"


def stats_to_dict(stats: TurnStats) -> dict[str, Any]:
    """``stats`` as plain JSON values."""
    return {**dataclasses.asdict(stats), "stop_reason": stats.stop_reason.value}
