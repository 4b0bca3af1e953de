"""Memory on screen: samples, the context's cells and what happened to chart, bar, composer and crash card. UI thread.

Taking samples is the monitor's, recording backend/session_log/recording.py's; both have threads of their own.
"""

from __future__ import annotations

import time

from PySide6.QtCore import QObject, Signal

from kvdesk.backend.engine.engine_event import Died, EngineState
from kvdesk.backend.planning.headroom_watch import RoomChanged
from kvdesk.backend.protocol import messages as m
from kvdesk.backend.protocol.facts import ContextFacts
from kvdesk.backend.session.session_event import Change
from kvdesk.backend.session_log.recording import Row, room_sentence
from kvdesk.backend.system.samples import Sample
from kvdesk.ui.chat.composer import Composer
from kvdesk.ui.memory.memory_dock import MemoryDock
from kvdesk.ui.memory.plots.chart_event import ChartEvent
from kvdesk.ui.panels.crash_card import CrashCard
from kvdesk.ui.panels.model_bar import ModelBar

LAST_MINUTE = 120
"""Samples kept for the crash card: a minute of them."""
MARKS_KEPT = 10
COMING_UP = (EngineState.STARTING, EngineState.LOADING, EngineState.WARMING)


class MemoryController(QObject):
    """Feeds everything that shows memory."""

    noticed = Signal(str, str)

    def __init__(
        self,
        memory_dock: MemoryDock,
        model_bar: ModelBar,
        composer: Composer,
        crash_card: CrashCard,
        parent: QObject | None = None,
    ) -> None:
        super().__init__(parent)
        self._dock = memory_dock
        self._bar = model_bar
        self._composer = composer
        self._crash_card = crash_card
        self._recent: list[Sample] = []
        self._marks: list[ChartEvent] = []

    def on_sample_taken(self, sample: Sample) -> None:
        """Show a sample; it is on record already."""
        self._recent = [*self._recent[-LAST_MINUTE:], sample]
        self._dock.add_sample(sample)
        self._bar.show_sample(sample)

    def on_room_changed(self, change: RoomChanged) -> None:
        """Say once that the room under a line got short, and once that it is well again."""
        self.noticed.emit(room_sentence(change), "warning" if change.worse else "note")

    def on_row_written(self, row: Row) -> None:
        """What goes into the log is a mark in the chart."""
        mark = ChartEvent(time.time(), row.kind, row.text)
        self._marks = [*self._marks[-MARKS_KEPT:], mark]
        self._dock.add_event(mark)

    def on_change(self, change: Change) -> None:
        """Follow the context and what happens to the engine."""
        before, now = change.before, change.now
        if now.context is not before.context:
            self._show_context(before.context, now.context)
        if isinstance(change.event, m.LoadProgress):
            self._dock.show_loading()
        if isinstance(change.event, Died):
            self._show_crash(change.event, before.context, without_gpu=now.may_be_a_gpus_fault)
        elif before.failure and not now.failure:
            self._crash_card.hide()
        if now.engine is not before.engine:
            self._crash_card.set_busy(now.engine in COMING_UP)

    def _show_context(self, before: ContextFacts | None, now: ContextFacts | None) -> None:
        if now and before and now.buffers is before.buffers and now.settings is before.settings:
            self._bar.show_kv(now.kv)
            self._dock.show_kv(now.kv)
        else:
            self._bar.show_context(now)
            self._dock.show_context(now)
        self._composer.show_context(now.kv.cells_used if now else None, now.n_ctx_limit if now else None)

    def _show_crash(self, died: Died, context: ContextFacts | None, *, without_gpu: bool) -> None:
        marks = [mark for mark in self._marks if mark.kind != "crash"]
        self._crash_card.show_crash(
            str(died.error), time.time(), self._recent, context.buffers if context else (), events=marks
        )
        self._crash_card.offer_without_gpu(offered=without_gpu)
