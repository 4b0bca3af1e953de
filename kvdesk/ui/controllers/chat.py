"""The chat on screen: opens, sends, streams, branches. Joins engine and the chat widgets. UI thread.

The open conversation and its keeping are ``OpenConversation``'s; what a model does with it the engine's. Everything typed or
generated is kept as it happens.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from PySide6.QtCore import QObject, QTimer, Signal

from kvdesk.backend.conversations.conversation import Conversation, Message, new_message
from kvdesk.backend.conversations.written_reply import WrittenReply
from kvdesk.backend.engine.engine_event import Died
from kvdesk.backend.protocol import messages as m
from kvdesk.backend.protocol.facts import ChatTurn, TurnStats
from kvdesk.backend.session.session import Session
from kvdesk.backend.session.session_event import Change
from kvdesk.backend.session.state import SessionState
from kvdesk.shown_text import shown_line
from kvdesk.ui.chat.composer import Composer
from kvdesk.ui.chat.conversation_list import ConversationList
from kvdesk.ui.chat.transcript import Transcript
from kvdesk.ui.controllers.conversations import ConversationsController
from kvdesk.ui.controllers.open_conversation import OpenConversation
from kvdesk.ui.controllers.token_counts import TokenCounts

SAVE_MS = 1000
"""A reply being written is saved this often: what a killed app can lose of it."""


class ChatController(QObject):
    """One conversation is open at a time; replies go on only in it."""

    noticed = Signal(str, str)
    """A sentence for the transcript and its kind ("note", "warning", "error")."""
    reply_finished = Signal(TurnStats)
    """TurnStats of a finished reply."""

    def __init__(
        self,
        session: Session,
        keeper: ConversationsController,
        opened: OpenConversation,
        transcript: Transcript,
        composer: Composer,
        conversation_list: ConversationList,
        parent: QObject | None = None,
    ) -> None:
        super().__init__(parent)
        self._session = session
        self._keeper = keeper
        self._transcript = transcript
        self._composer = composer
        self._list = conversation_list
        self._opened = opened
        self._reply: WrittenReply | None = None
        self._request_id = 0
        self._requests = 0
        self.token_counts = TokenCounts(session, self)
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
        self.token_counts.draft_counted.connect(self._composer.show_draft_tokens)
        self._opened.kept.connect(self._list.show_current)
        self._opened.shown.connect(self._show)
        self._opened.system_prompt_changed.connect(self._count)

    # --- keeping ------------------------------------------------------------------------------------------------

    def keep_all(self) -> None:
        """The app ends: what is typed, and what was written of a reply, is kept."""
        self._opened.set_draft(self._composer.draft())
        if self._reply:
            self._end_reply(None, self.tr("kvdesk was closed"))

    def _save_partial(self) -> None:
        if self._reply and (self._reply.texts or self._reply.thoughts):
            self._opened.update(self._reply.so_far())

    # --- which conversation -------------------------------------------------------------------------------------

    def new(self) -> None:
        """Open an empty conversation."""
        self._leave()
        self._opened.show_new()

    def open(self, conversation_id: str) -> None:
        """Show a kept conversation."""
        if conversation_id == self._opened.id:
            return
        self._keeper.read(conversation_id, self._on_read)

    def _on_read(self, conversation: Conversation, messages: tuple[Message, ...]) -> None:
        self._leave()
        self._opened.show(conversation, messages)

    def _on_moved(self, old_id: str, new_id: str) -> None:
        """The open conversation was deleted in another window: what is on screen goes on in a new one."""
        words = self.tr("A conversation was deleted in another window; what was said in it here goes on as a new one.")
        if old_id != self._opened.id:
            self.noticed.emit(words, "warning")
            return
        moved = self._opened.move(new_id)
        self._show_path()
        if self._reply:
            self._reply.begun = begun = moved[self._reply.begun.id]
            self._list.show_busy(new_id)
            self._transcript.begin_reply(begun.id)
            self._transcript.append_text(begun.id, self._reply.text, self._reply.thought)
        self.noticed.emit(words, "warning")

    def _leave(self) -> None:
        if self._reply:
            self._session.stop()
            self._end_reply(None, self.tr("stopped: another conversation was opened"))
        self._opened.set_draft(self._composer.draft())
        self._opened.leave()

    def _show(self) -> None:
        self._list.show_current(self._opened.kept_id or None)
        self._composer.set_draft(self._opened.conversation.draft)
        self._show_path()
        self._composer.setFocus()

    def _show_path(self) -> None:
        self._transcript.show_messages(self._opened.rows())
        self._count()

    def _on_renamed(self, conversation_id: str, title: str) -> None:
        if conversation_id == self._opened.id:
            self._opened.rename(title)

    def _on_deleted(self, conversation_id: str) -> None:
        if conversation_id == self._opened.id:
            self.new()

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
            self._opened.take_draft()
        self._transcript.jump_to_latest()
        self._add(new_message("user", text, self._opened.last_id, time.time()))
        self._answer()

    def _answer(self) -> None:
        """A new reply under the last message of the branch."""
        parent = self._opened.last_id
        reply = new_message(
            "assistant", "", parent, time.time(), is_complete=False, model_name=_model_name(self._session.state)
        )
        turns = self._opened.turns()
        self._add(reply)
        self._start(reply, turns, continue_last=False)

    def _add(self, message: Message) -> None:
        self._opened.add(message)
        self._transcript.add_message(self._opened.row(message))

    def _start(self, reply: Message, turns: tuple[ChatTurn, ...], *, continue_last: bool) -> None:
        self._requests += 1
        self._request_id = self._requests
        self._reply = WrittenReply(reply)
        self._transcript.begin_reply(reply.id)
        self._composer.show_generating(True)
        self._list.show_busy(self._opened.id)
        self._save_timer.start()
        self._session.generate(
            m.Generate(
                self._request_id,
                self._opened.id,
                turns,
                self._opened.conversation.sampling,
                self._opened.conversation.overflow,
                continue_last,
            )
        )

    def _cut_to(self, parent_id: str | None) -> None:
        """Make the branch end in ``parent_id``; nothing is deleted."""
        self._opened.cut_to(parent_id)
        self._transcript.show_messages(self._opened.rows())

    def _on_regenerate_requested(self, message_id: str) -> None:
        message = self._opened.message(message_id)
        if message and self.can_send and not self._reply:
            self._cut_to(message.parent_id if message.role == "assistant" else message.id)
            self._answer()

    def _on_message_edited(self, message_id: str, text: str) -> None:
        old = self._opened.message(message_id)
        if not old:
            return
        if self._reply:
            self._session.stop()
            self._end_reply(None, self.tr("stopped: an earlier message was edited"))
        self._cut_to(old.parent_id)
        self._add(new_message(old.role, text, old.parent_id, time.time()))
        if old.role == "user" and self.can_send:
            self._answer()

    def _on_continue_requested(self, message_id: str) -> None:
        message = self._opened.message(message_id)
        if message and self.can_send and not self._reply and self._opened.last_id == message_id:
            self._start(message, self._opened.turns(), continue_last=True)

    def _on_version_requested(self, message_id: str, delta: int) -> None:
        if not self._reply and self._opened.choose_version(message_id, delta):
            self._show_path()

    # --- what the engine says ------------------------------------------------------------------------------------

    def on_change(self, change: Change) -> None:
        """Take what concerns the open conversation."""
        before, now, event = change.before, change.now, change.event
        if now.can_answer != before.can_answer or now.is_loading != before.is_loading or now.model is not before.model:
            self._composer.show_closed(self._why_closed(now))
            self.token_counts.forget()
            self._count()
        match event:
            case m.TokensCounted():
                self.token_counts.take(event)
            case Died():
                if self._reply:
                    self._end_reply(None, str(event.error), failed=True)
            case m.PromptProgress() | m.TextGenerated() | m.TurnFinished() | m.Failed() | m.Forgot():
                if event.request_id == self._request_id and self._reply:
                    self._on_reply_event(self._reply, event)
            case _:
                pass

    def _why_closed(self, state: SessionState) -> str:
        if state.can_answer:
            return ""
        if state.is_loading:
            return self.tr("The model is being loaded.")
        return self.tr("The engine died; reload to go on.") if state.failure else self.tr("No model is loaded.")

    def _on_reply_event(self, reply: WrittenReply, event: Any) -> None:
        match event:
            case m.PromptProgress():
                self._transcript.show_prompt_progress(reply.begun.id, event.done, event.total)
            case m.TextGenerated():
                reply.take(event.text, event.thought)
                self._transcript.append_text(reply.begun.id, event.text, event.thought)
                self._transcript.show_speed(reply.begun.id, event.n_tokens, event.tokens_per_second)
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
        finished = reply.ended(stats, note)
        self._opened.update(finished)
        if stats:
            self._transcript.finish_reply(finished.id, stats, stats.stop_reason)
        elif failed:
            self._transcript.fail_reply(finished.id, note)
        self._composer.show_generating(False)
        self._list.show_busy(None)
        if not failed:
            self._transcript.update_message(self._opened.row(finished))
        self._count()

    # --- the draft ------------------------------------------------------------------------------------------------

    def _on_draft_changed(self, draft: str) -> None:
        self._opened.set_draft(draft)
        self._count()

    def _count(self) -> None:
        if self.can_send:
            self.token_counts.ask(self._opened.turns(), self._composer.draft())
        else:
            self.token_counts.forget()
            self._composer.show_draft_tokens(None)


def _model_name(state: SessionState) -> str:
    """What a reply says it was written by."""
    return shown_line(state.model.name or Path(state.model.path).stem) if state.model else ""
