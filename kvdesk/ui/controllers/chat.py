"""Conversations on screen: opens, sends, streams, branches. Joins engine and the chat widgets. UI thread.

What a message tree is, is backend/conversations/conversation.py's; what a model does with it the engine's. Everything typed or generated goes
to the store (ui/controllers/conversations.py) as it happens.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PySide6.QtCore import QObject, QTimer, Signal

from kvdesk.backend.conversations.conversation import (
    Conversation,
    Message,
    active_path,
    moved_to,
    new_message,
    newest_leaf,
    siblings,
    title_of,
    to_turns,
)
from kvdesk.backend.engine.engine_event import Died
from kvdesk.backend.protocol import messages as m
from kvdesk.backend.protocol.facts import ChatTurn, TurnStats
from kvdesk.backend.session.session import Session
from kvdesk.backend.session.session_event import Change
from kvdesk.backend.session.state import SessionState
from kvdesk.backend.settings import SamplingSettings
from kvdesk.ui.chat.composer import Composer
from kvdesk.ui.chat.conversation_list import ConversationList
from kvdesk.ui.chat.message_row import MessageRow
from kvdesk.ui.chat.sampling_panel import SamplingPanel
from kvdesk.ui.chat.transcript import Transcript
from kvdesk.ui.controllers.conversations import ConversationsController

SAVE_MS = 1000
"""A reply being written is saved this often: what a killed app can lose of it."""


class ChatController(QObject):
    """One conversation is open at a time; replies go on only in it."""

    noticed = Signal(str, str)
    """A sentence for the transcript and its kind ("note", "warning", "error")."""
    reply_finished = Signal(TurnStats)
    """TurnStats of a finished reply."""
    tokens_counted = Signal(int, int)
    """Tokens of the conversation and of the draft, as a prompt."""
    sampling_chosen = Signal(SamplingSettings)
    """SamplingSettings, changed by the user for the open conversation."""

    def __init__(
        self,
        session: Session,
        keeper: ConversationsController,
        transcript: Transcript,
        composer: Composer,
        conversation_list: ConversationList,
        sampling_panel: SamplingPanel,
        new_conversation: Callable[[], Conversation],
        parent: QObject | None = None,
    ) -> None:
        super().__init__(parent)
        self._session = session
        self._keeper = keeper
        self._transcript = transcript
        self._composer = composer
        self._list = conversation_list
        self._sampling_panel = sampling_panel
        self._new_conversation = new_conversation
        self.conversation: Conversation = new_conversation()
        self._is_kept = False
        self._messages: dict[str, Message] = {}
        self._path: tuple[Message, ...] = ()
        self._reply: Message | None = None
        self._pieces: list[str] = []
        self._thoughts: list[str] = []
        self._request_id = 0
        self._requests = 0
        self._counts = 0
        self._count_ids = {False: 0, True: 0}
        """The newest counts asked for: of the conversation, and (True) of the draft."""
        self._counted_turns: tuple[ChatTurn, ...] | None = None
        self._history_tokens: int | None = None
        self._draft_tokens = 0
        self._save_timer = QTimer(self)
        self._save_timer.setInterval(SAVE_MS)
        self._save_timer.timeout.connect(self._save_partial)
        self._connect()

    def _connect(self) -> None:
        self._transcript.starter_chosen.connect(self.send)
        self._transcript.regenerate_requested.connect(self._on_regenerate_requested)
        self._transcript.continue_requested.connect(self._on_continue_requested)
        self._transcript.message_edited.connect(self._on_message_edited)
        self._transcript.version_requested.connect(self._on_version_requested)
        self._composer.message_sent.connect(self.send)
        self._composer.stop_requested.connect(self._session.stop)
        self._composer.draft_changed.connect(self._on_draft_changed)
        self._list.conversation_chosen.connect(self.open)
        self._list.new_requested.connect(self.new)
        self._keeper.renamed.connect(self._on_renamed)
        self._keeper.deleted.connect(self._on_deleted)
        self._keeper.restored.connect(self.open)
        self._keeper.moved.connect(self._on_moved)
        self._sampling_panel.changed.connect(self._on_sampling_changed)
        self._sampling_panel.system_prompt_changed.connect(self._on_system_prompt_changed)
        self._sampling_panel.overflow_changed.connect(self.set_overflow)

    # --- the store ----------------------------------------------------------------------------------------------

    def _save_conversation(self, **changes: Any) -> None:
        self.conversation = conversation = dataclasses.replace(self.conversation, updated_s=time.time(), **changes)
        if self._is_kept:
            self._keeper.save(conversation)
        else:
            self._keep_if_typed()

    def _keep_if_typed(self) -> None:
        """A conversation is kept from its first message on, or from what is typed before."""
        conversation = self.conversation
        if conversation.draft.strip() or conversation.system_prompt != self._new_conversation().system_prompt:
            self._is_kept = True
            self._keeper.save(conversation)
            self._list.show_current(conversation.id)

    def _keep_draft(self) -> None:
        draft = self._composer.draft()
        if draft == self.conversation.draft:
            return
        self.conversation = conversation = dataclasses.replace(self.conversation, draft=draft)
        if not self._is_kept:
            self._keep_if_typed()
        else:
            self._keeper.save(conversation, listed=not conversation.title)

    def _add(self, message: Message) -> None:
        """Put a message at the end of the open branch and keep it."""
        self._messages[message.id] = message
        self._path = (*self._path, message)
        title = self.conversation.title or (title_of(message.content) if message.role == "user" else "")
        self.conversation = dataclasses.replace(
            self.conversation, title=title, active_leaf_id=message.id, updated_s=time.time()
        )
        self._is_kept = True
        self._keeper.save(self.conversation, message)

    def _update(self, message: Message) -> None:
        self._messages[message.id] = message
        self._path = tuple(message if one.id == message.id else one for one in self._path)
        self._keeper.save(self.conversation, message, listed=False)

    def keep_all(self) -> None:
        """The app ends: what is typed, and what was written of a reply, is kept."""
        self._keep_draft()
        if self._reply:
            self._end_reply(None, self.tr("kvdesk was closed"))

    def _save_partial(self) -> None:
        if self._reply and (self._pieces or self._thoughts):
            self._update(self._written(self._reply))

    def _written(self, reply: Message) -> Message:
        """``reply`` with what has come of it."""
        thought = (reply.thought + "".join(self._thoughts)).strip()
        return dataclasses.replace(reply, content=reply.content + "".join(self._pieces), thought=thought)

    # --- which conversation -------------------------------------------------------------------------------------

    @property
    def kept_id(self) -> str:
        """The open conversation's id, "" while nothing of it is kept."""
        return self.conversation.id if self._is_kept else ""

    def new(self) -> None:
        """An empty conversation."""
        self._leave()
        self._show(self._new_conversation(), (), is_kept=False)

    def open(self, conversation_id: str) -> None:
        """Show a kept conversation."""
        if conversation_id == self.conversation.id:
            return
        self._keeper.read(conversation_id, self._on_read)

    def _on_read(self, conversation: Conversation, messages: tuple[Message, ...]) -> None:
        self._leave()
        self._show(conversation, messages, is_kept=True)

    def _on_moved(self, old_id: str, new_id: str) -> None:
        """The open conversation was deleted in another window: what is on screen goes on in a new one."""
        words = self.tr("A conversation was deleted in another window; what was said in it here goes on as a new one.")
        if old_id != self.conversation.id:
            self.noticed.emit(words, "warning")
            return
        self.conversation, messages = moved_to(new_id, self.conversation, self._messages.values())
        new_ids = dict(zip(self._messages, messages, strict=True))
        self._messages = {message.id: message for message in messages}
        self._path = tuple(new_ids[message.id] for message in self._path)
        self._reply = new_ids[self._reply.id] if self._reply else None
        self._keeper.save(self.conversation, *messages)
        self._list.show_current(new_id)
        self._show_path()
        if self._reply:
            self._list.show_busy(new_id)
            self._transcript.begin_reply(self._reply.id)
            self._transcript.append_text(self._reply.id, "".join(self._pieces), "".join(self._thoughts))
        self.noticed.emit(words, "warning")

    def _leave(self) -> None:
        if self._reply:
            self._session.stop()
            self._end_reply(None, self.tr("stopped: another conversation was opened"))
        self._keep_draft()
        conversation_id = self.conversation.id
        if self._is_kept and not self._messages:
            self._keeper.change(lambda store: store.remove_if_empty(conversation_id))

    def _show(self, conversation: Conversation, messages: tuple[Message, ...], *, is_kept: bool) -> None:
        self.conversation = conversation
        self._is_kept = is_kept
        self._messages = {message.id: message for message in messages}
        self._path = active_path(messages, conversation.active_leaf_id)
        self._list.show_current(conversation.id if is_kept else None)
        self._composer.set_draft(conversation.draft)
        self._show_settings()
        self._show_path()
        self._composer.setFocus()

    def _show_path(self) -> None:
        self._transcript.show_messages([self._row(message) for message in self._path])
        self._count()

    def _row(self, message: Message) -> MessageRow:
        versions = [one.id for one in siblings(self._messages.values(), message)]
        return MessageRow(
            message_id=message.id,
            role=message.role,
            text=message.content,
            thought=message.thought,
            stats=message.stats,
            model_name=message.model_name,
            stop_note=message.stop_note,
            is_complete=message.is_complete,
            version=versions.index(message.id) + 1,
            n_versions=len(versions),
        )

    def _on_renamed(self, conversation_id: str, title: str) -> None:
        if conversation_id == self.conversation.id:
            self.conversation = dataclasses.replace(self.conversation, title=title)
            self._keeper.save(self.conversation, listed=False)

    def _on_deleted(self, conversation_id: str) -> None:
        if conversation_id == self.conversation.id:
            self.new()

    # --- settings of the conversation ----------------------------------------------------------------------------

    def _show_settings(self) -> None:
        chosen = self.conversation
        self._sampling_panel.show_conversation(chosen.sampling, chosen.system_prompt, chosen.overflow)

    def _refresh_new(self) -> None:
        """Another model is there, and with it what new conversations begin with: one that nothing was done in takes it."""
        if not self._is_kept:
            self.conversation = dataclasses.replace(self.conversation, sampling=self._new_conversation().sampling)
            self._show_settings()

    def _on_sampling_changed(self, sampling: SamplingSettings) -> None:
        self._save_conversation(sampling=sampling)
        self.sampling_chosen.emit(sampling)

    def _on_system_prompt_changed(self, text: str) -> None:
        self._save_conversation(system_prompt=text)
        self._count()

    def set_overflow(self, policy: str) -> None:
        """What happens at the context's end, for this conversation."""
        self._save_conversation(overflow=policy)
        self._show_settings()

    # --- asking ---------------------------------------------------------------------------------------------------

    @property
    def is_replying(self) -> bool:
        """Whether a reply is being written."""
        return self._reply is not None

    @property
    def can_send(self) -> bool:
        """Whether a message can be answered."""
        return self._session.state.can_answer

    def send(self, text: str) -> None:
        """Say ``text`` and have it answered. It stays in the composer when no model can answer."""
        if not text.strip():
            return
        if not self.can_send or self._reply:
            self._composer.set_draft(text)
            return
        if text == self._composer.draft():  # not one of the suggestions, beside what is typed
            self._composer.set_draft("")
            self.conversation = dataclasses.replace(self.conversation, draft="")
        self._transcript.jump_to_latest()
        parent = self._path[-1].id if self._path else None
        message = new_message("user", text, parent, time.time())
        self._add(message)
        self._transcript.add_message(self._row(message))
        self._list.show_current(self.conversation.id)
        self._answer()

    def _answer(self) -> None:
        """A new reply under the last message of the branch."""
        parent = self._path[-1].id if self._path else None
        reply = new_message(
            "assistant", "", parent, time.time(), is_complete=False, model_name=_model_name(self._session.state)
        )
        turns = to_turns(self.conversation, self._path)
        self._add(reply)
        self._transcript.add_message(self._row(reply))
        self._start(reply, turns, continue_last=False)

    def _start(self, reply: Message, turns: tuple[ChatTurn, ...], *, continue_last: bool) -> None:
        self._requests += 1
        self._request_id = self._requests
        self._reply = reply
        self._pieces, self._thoughts = [], []
        self._transcript.begin_reply(reply.id)
        self._composer.show_generating(True)
        self._list.show_busy(self.conversation.id)
        self._save_timer.start()
        self._session.generate(
            m.Generate(
                self._request_id,
                self.conversation.id,
                turns,
                self.conversation.sampling,
                self.conversation.overflow,
                continue_last,
            )
        )

    def _cut_to(self, parent_id: str | None) -> None:
        """Make the branch end in ``parent_id``; nothing is deleted."""
        self._path = active_path(self._messages.values(), parent_id) if parent_id else ()
        self._transcript.show_messages([self._row(message) for message in self._path])

    def _on_regenerate_requested(self, message_id: str) -> None:
        message = self._messages.get(message_id)
        if message and self.can_send and not self._reply:
            self._cut_to(message.parent_id if message.role == "assistant" else message.id)
            self._answer()

    def _on_message_edited(self, message_id: str, text: str) -> None:
        old = self._messages.get(message_id)
        if not old:
            return
        if self._reply:
            self._session.stop()
            self._end_reply(None, self.tr("stopped: an earlier message was edited"))
        self._cut_to(old.parent_id)
        message = new_message(old.role, text, old.parent_id, time.time())
        self._add(message)
        self._transcript.add_message(self._row(message))
        if message.role == "user" and self.can_send:
            self._answer()

    def _on_continue_requested(self, message_id: str) -> None:
        message = self._messages.get(message_id)
        if message and self.can_send and not self._reply and self._path and self._path[-1].id == message_id:
            self._start(message, to_turns(self.conversation, self._path), continue_last=True)

    def _on_version_requested(self, message_id: str, delta: int) -> None:
        message = self._messages.get(message_id)
        if not message or self._reply:
            return
        versions = siblings(self._messages.values(), message)
        at = [one.id for one in versions].index(message_id) + delta
        if 0 <= at < len(versions):
            leaf = newest_leaf(self._messages.values(), versions[at].id)
            self._path = active_path(self._messages.values(), leaf)
            self._save_conversation(active_leaf_id=leaf)
            self._show_path()

    # --- what the engine says ------------------------------------------------------------------------------------

    def on_change(self, change: Change) -> None:
        """Take what concerns the open conversation."""
        before, now, event = change.before, change.now, change.event
        if isinstance(event, m.Loaded):
            self._refresh_new()
        if now.can_answer != before.can_answer or now.is_loading != before.is_loading or now.model is not before.model:
            self._composer.show_closed(self._why_closed(now))
            self._counted_turns = None  # another model counts anew
            self._count()
        match event:
            case m.TokensCounted():
                self._on_tokens_counted(event)
            case Died():
                if self._reply:
                    self._end_reply(None, str(event.error), failed=True)
            case m.PromptProgress() | m.TextGenerated() | m.TurnFinished() | m.Failed() | m.Forgot():
                if event.request_id == self._request_id and self._reply:
                    self._on_reply_event(event)
            case _:
                pass

    def _why_closed(self, state: SessionState) -> str:
        if state.can_answer:
            return ""
        if state.is_loading:
            return self.tr("The model is being loaded.")
        return self.tr("The engine died; reload to go on.") if state.failure else self.tr("No model is loaded.")

    def _on_reply_event(self, event: Any) -> None:
        assert self._reply
        match event:
            case m.PromptProgress():
                self._transcript.show_prompt_progress(self._reply.id, event.done, event.total)
            case m.TextGenerated():
                self._pieces.append(event.text)
                self._thoughts.append(event.thought)
                self._transcript.append_text(self._reply.id, event.text, event.thought)
                self._transcript.show_speed(self._reply.id, event.n_tokens, event.tokens_per_second)
            case m.Forgot():
                what = (
                    self.tr("{0} of the oldest messages").format(event.n_turns)
                    if event.n_turns
                    else self.tr("{0:,} tokens").format(event.n_tokens)
                )
                self.noticed.emit(self.tr("The context is full: the model no longer sees {0}.").format(what), "warning")
            case m.TurnFinished():
                self._end_reply(event.stats, "")
                self.reply_finished.emit(event.stats)
            case _:
                self._end_reply(None, event.sentence, failed=True)

    def _end_reply(self, stats: TurnStats | None, note: str, *, failed: bool = False) -> None:
        reply = self._reply
        assert reply
        self._reply, self._request_id = None, 0
        self._save_timer.stop()
        finished = dataclasses.replace(
            self._written(reply),
            stats=stats,
            stop_note=note,
            is_complete=stats is not None,
        )
        self._pieces, self._thoughts = [], []
        self._update(finished)
        if stats:
            self._transcript.finish_reply(reply.id, stats, stats.stop_reason)
        elif failed:
            self._transcript.fail_reply(reply.id, note)
        self._composer.show_generating(False)
        self._list.show_busy(None)
        if not failed:
            self._transcript.update_message(self._row(finished))
        self._count()

    # --- the draft ------------------------------------------------------------------------------------------------

    def _on_draft_changed(self, _draft: str) -> None:
        self._keep_draft()
        self._count()

    def _count(self) -> None:
        """Ask how many tokens the conversation makes, once for each state of it, and how many the draft; answered while
        replies go on."""
        if not self.can_send:
            self._counted_turns = self._history_tokens = None
            self._composer.show_draft_tokens(None)
            return
        turns = to_turns(self.conversation, self._path)
        if turns != self._counted_turns:
            self._counted_turns, self._history_tokens = turns, None
            self._ask_count(turns, is_plain=False)
        draft = self._composer.draft()
        self._ask_count((ChatTurn("user", draft),) if draft else (), is_plain=True)

    def _ask_count(self, turns: tuple[ChatTurn, ...], *, is_plain: bool) -> None:
        self._counts += 1
        self._count_ids[is_plain] = -self._counts  # no reply has such a number
        self._session.engine.send(m.CountTokens(-self._counts, turns, is_plain))

    def _on_tokens_counted(self, event: m.TokensCounted) -> None:
        if event.request_id == self._count_ids[False]:
            self._history_tokens = event.n_tokens
        elif event.request_id == self._count_ids[True]:
            self._draft_tokens = event.n_tokens
            self._composer.show_draft_tokens(event.n_tokens)
        else:
            return
        if self._history_tokens is not None:
            self.tokens_counted.emit(self._history_tokens if self._path else 0, self._draft_tokens)


def _model_name(state: SessionState) -> str:
    """What a reply says it was written by."""
    return (state.model.name or Path(state.model.path).stem) if state.model else ""
