"""A real engine process and the events it sent, for tests."""

from __future__ import annotations

import queue
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from kvdesk.backend.engine.engine import Engine
from kvdesk.backend.engine.engine_event import Died, EngineEvent
from kvdesk.backend.protocol import messages as m
from kvdesk.backend.protocol.facts import ChatTurn, TurnStats
from kvdesk.backend.sampling import SamplingSettings
from kvdesk.backend.settings import ContextSettings, EngineSettings, ModelSettings

GREEDY = SamplingSettings(temperature=0.0, max_tokens=16)
SAFE = ModelSettings(use_extra_bufts=False)
E = TypeVar("E")


class Desk:
    """One engine; ``until`` takes events up to the wanted one and answers growth with ``growth``."""

    def __init__(self, folder: Path, snapshots: Path | None = None) -> None:
        self.events: queue.SimpleQueue[EngineEvent] = queue.SimpleQueue()
        self.seen: list[EngineEvent] = []
        self.growth: Any = lambda wanted: m.GrowAnswer("stop" if wanted.failed else "grow")
        place = m.SnapshotPlace(str(snapshots), 100_000_000) if snapshots else None
        self.engine = Engine(self.events.put, folder, place)
        self._requests = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.engine.shutdown()

    def until(self, *wanted: type[E], timeout_s: float = 90.0) -> E:
        """The next event of one of the classes ``wanted``; a Failed or Died that nobody wanted fails the test."""
        while True:
            event = self.events.get(timeout=timeout_s)
            self.seen.append(event)
            if isinstance(event, wanted):
                return event  # type: ignore[return-value]
            if isinstance(event, m.GrowWanted):
                self.engine.send(self.growth(event))
            assert not isinstance(event, (m.Failed, Died)), event

    def of(self, kind: type[E]) -> list[E]:
        """What was seen of a class."""
        return [event for event in self.seen if isinstance(event, kind)]

    def load(self, path: Path, context: ContextSettings | None = None, model: ModelSettings = SAFE) -> m.Loaded:
        self.engine.load(path, EngineSettings(model, context or ContextSettings(n_ctx=2048, n_threads=1)))
        return self.until(m.Loaded)

    def ask(self, *contents: str, sampling: SamplingSettings = GREEDY, **more: Any) -> int:
        """Send contents as alternating user and assistant turns; returns the request id."""
        self._requests += 1
        turns = tuple(ChatTurn(("user", "assistant")[i % 2], text) for i, text in enumerate(contents))
        self.engine.send(m.Generate(self._requests, more.pop("conversation_id", "c"), turns, sampling, **more))
        return self._requests

    def answer(self, *contents: str, **more: Any) -> tuple[str, TurnStats]:
        """Ask and wait: the whole reply and its figures."""
        before = len(self.seen)
        self.ask(*contents, **more)
        finished = self.until(m.TurnFinished)
        text = "".join(e.text for e in self.seen[before:] if isinstance(e, m.TextGenerated))
        return text, finished.stats
