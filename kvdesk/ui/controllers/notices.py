"""Sentences of the app in the transcript, and what their buttons do. UI thread."""

from __future__ import annotations

import time
from collections.abc import Callable

from PySide6.QtCore import QObject, Signal

from kvdesk import paths
from kvdesk.backend.engine.engine_event import FellBack
from kvdesk.backend.session.session_event import Change
from kvdesk.backend.session_log.reader import SessionSummary
from kvdesk.backend.system import cpu_fallback
from kvdesk.ui.chat.transcript import Transcript
from kvdesk.ui.controllers.bridge import Bridge
from kvdesk.ui.controllers.session_log import SessionLogController

UNFORESEEN_AGAIN_S = 60.0
"""An unforeseen error that comes again and again is said no oftener."""


class NoticesController(QObject):
    """Says what happened beside the conversation."""

    unforeseen = Signal()
    """Something that nobody caught is in the log; may be emitted from any thread."""

    def __init__(
        self, transcript: Transcript, bridge: Bridge, logs: SessionLogController, parent: QObject | None = None
    ) -> None:
        super().__init__(parent)
        self._transcript = transcript
        self._bridge = bridge
        self._logs = logs
        self._actions: dict[int, Callable[[], None]] = {}
        transcript.notice_action_triggered.connect(self._on_action_triggered)
        logs.unclean_found.connect(self._on_unclean_found)
        self._unforeseen_said_s: float | None = None
        self.unforeseen.connect(self._on_unforeseen)

    def say(self, text: str, kind: str) -> None:
        """``kind``: "note", "warning" or "error"."""
        self._transcript.add_notice(text, kind)

    def on_change(self, change: Change) -> None:
        """Say, and remember, what this computer cannot do."""
        if isinstance(change.event, FellBack):
            cpu_fallback.remember(paths.fallback_file())
            self._say_fallen_back()

    def _offer(self, text: str, action_text: str, action: Callable[[], None]) -> None:
        self._actions[self._transcript.add_notice(text, "warning", action_text)] = action

    def _on_action_triggered(self, notice: int) -> None:
        if notice in self._actions:
            self._actions[notice]()

    def _on_unforeseen(self) -> None:
        now_s, before_s = time.monotonic(), self._unforeseen_said_s
        if before_s is None or now_s - before_s >= UNFORESEEN_AGAIN_S:
            self._unforeseen_said_s = now_s
            words = self.tr(
                "Something in kvdesk went wrong that was not foreseen. It goes on, and what was said is kept; "
                "what you did last may have had no effect. kvdesk.log has the details."
            )
            self._offer(words, self.tr("Copy report"), self._logs.copy_report)

    def _on_unclean_found(self, summary: SessionSummary) -> None:
        words = self.tr("kvdesk did not end in order last time. Its memory was on record up to the last second.")
        self._offer(words, self.tr("Show the log"), lambda: self._logs.show(summary.path))

    def _say_fallen_back(self) -> None:
        words = self.tr(
            "The engine crashed in its first computation with repacked weights, which this computer cannot do. "
            "It was started again without them; kvdesk remembers that."
        )
        self._offer(words, self.tr("Try them again next time"), self._forget_fallback)

    def _forget_fallback(self) -> None:
        self._bridge.in_background(lambda: cpu_fallback.forget(paths.fallback_file()), self._on_fallback_forgotten)

    def _on_fallback_forgotten(self, result: bool | Exception) -> None:
        if isinstance(result, Exception):
            self.say(self.tr("That could not be kept; the data folder cannot be written."), "error")
        else:
            self.say(self.tr("Repacked weights are tried again with the next load."), "note")
