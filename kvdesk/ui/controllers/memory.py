"""Memory on screen and on record: samples to chart, bar and recorder, warnings once per crossing. UI thread.

Taking samples is the monitor's, writing them the recorder's; both have threads of their own.
"""

from __future__ import annotations

import time
from typing import Any

from PySide6.QtCore import QObject, Signal

from kvdesk.backend.engine.engine_event import Died, EngineEvent, StateChanged
from kvdesk.backend.planning.headroom_watch import HeadroomWatch
from kvdesk.backend.planning.plan import MemoryPlan
from kvdesk.backend.protocol import messages as m
from kvdesk.backend.protocol.facts import ContextFacts, KvState
from kvdesk.backend.session_log.recorder import Recorder
from kvdesk.backend.system.monitor import Monitor
from kvdesk.backend.system.samples import Sample
from kvdesk.ui.chat.composer import Composer
from kvdesk.ui.memory.memory_dock import MemoryDock
from kvdesk.ui.memory.plots.chart_event import ChartEvent
from kvdesk.ui.panels.crash_card import CrashCard
from kvdesk.ui.panels.model_bar import ModelBar
from kvdesk.ui.widgets.numbers import format_bytes

LAST_MINUTE = 120
"""Samples kept for the crash card: a minute of them."""


class MemoryController(QObject):
    """Feeds everything that shows memory."""

    noticed = Signal(str, str)

    def __init__(
        self,
        monitor: Monitor,
        recorder: Recorder,
        memory_dock: MemoryDock,
        model_bar: ModelBar,
        composer: Composer,
        crash_card: CrashCard,
        parent: QObject | None = None,
    ) -> None:
        super().__init__(parent)
        self._monitor = monitor
        self._recorder = recorder
        self._dock = memory_dock
        self._bar = model_bar
        self._composer = composer
        self._crash_card = crash_card
        self._watch = HeadroomWatch()
        self._recent: list[Sample] = []
        self._events: list[ChartEvent] = []
        self._context: ContextFacts | None = None

    @property
    def latest(self) -> Sample | None:
        """The newest sample."""
        return self._recent[-1] if self._recent else None

    def held(self) -> dict[str, int | None]:
        """What the engine holds in each domain by the newest sample."""
        return {domain.name: domain.engine_bytes for domain in self.latest.domains} if self.latest else {}

    def on_sample_taken(self, sample: Sample) -> None:
        """Show a sample; it is on record already."""
        self._recent = [*self._recent[-LAST_MINUTE:], sample]
        self._dock.add_sample(sample)
        self._bar.show_sample(sample)
        for change in self._watch.feed(sample):
            self._warn(change.domain, change.level, change.room_bytes, worse=change.worse)

    def _warn(self, domain: str, level: str, room_bytes: int, *, worse: bool) -> None:
        if room_bytes < 0:
            words = self.tr("At full context length this model would go {0} over the OOM line of {1}.").format(
                format_bytes(-room_bytes), domain
            )
        else:
            words = self.tr("At full context length {1} has {0} left under its OOM line.").format(
                format_bytes(room_bytes), domain
            )
        if not worse:
            words = self.tr("Memory is easier again. ") + words
        self.noticed.emit(words, "warning" if worse else "note")
        self.note("warning" if level else "note", words, {"domain": domain, "room_bytes": room_bytes})

    def on_engine_event(self, event: EngineEvent) -> None:
        """Follow what changes what memory means."""
        match event:
            case StateChanged():
                self._monitor.set_state(event.now.value)
                self._monitor.set_engine(event.pid)
                if event.now.value != "generating":
                    self._monitor.set_speed(None)
            case m.Started():
                self._monitor.set_devices(event.devices)
            case m.KvChanged():
                self._show_kv(event.kv)
            case m.TurnFinished():
                self._show_kv(event.kv)
            case m.TextGenerated():
                self._monitor.set_speed(event.tokens_per_second)
            case Died():
                self._monitor.set_engine(None)
                self._crash_card.show_crash(
                    str(event.error),
                    time.time(),
                    self._recent,
                    self._context.buffers if self._context else (),
                    events=self._events[-10:],
                )
                self._crash_card.show()
            case _:
                pass

    def _show_kv(self, kv: KvState) -> None:
        self._monitor.set_kv(kv)
        self._bar.show_kv(kv)
        self._dock.show_kv(kv)
        self._composer.show_context(kv.cells_used, self._context.n_ctx_limit if self._context else None)

    def on_context_changed(self, context: ContextFacts | None) -> None:
        """Another context exists now, or none."""
        self._context = context
        self._monitor.set_buffers(context.buffers if context else ())
        self._monitor.set_kv(context.kv if context else None)
        self._composer.show_context(
            context.kv.cells_used if context else None, context.n_ctx_limit if context else None
        )
        if context is None:
            self._monitor.set_predicted(None)

    def on_planned(self, plan: MemoryPlan) -> None:
        """What the settings in force will take at full length."""
        self._monitor.set_predicted([(device.name, device.total_bytes) for device in plan.devices])

    def note(self, kind: str, text: str, values: Any) -> None:
        """Something happened: into the log, and as a mark into the chart."""
        self._recorder.event(kind, text, values)
        mark = ChartEvent(time.time(), kind, text)
        self._events.append(mark)
        self._dock.add_event(mark)
