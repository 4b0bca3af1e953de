"""Answers "what would this cost?" for the window without making it wait: a thread of its own around planning/pricer.py.

Latest wins: while a slider moves, only the newest question of each kind is answered. Callbacks run on the planner's
thread (the bridge turns them into signals). The model's header, the helper and all answers are kept for the model asked
about last; the helper process is ended when nothing was asked for a while.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from kvdesk.backend.gguf.model_file import read_model_file
from kvdesk.backend.planning.calibration import Calibration, Comparison, compare
from kvdesk.backend.planning.device_plan import Reading
from kvdesk.backend.planning.plan_event import (
    CapacityReady,
    ChoicesReady,
    Compared,
    CurveReady,
    GrowthPriced,
    KvTableReady,
    PlanEvent,
    PlanFailed,
    PlanReady,
)
from kvdesk.backend.planning.pricer import CURVE_POINTS, Pricer
from kvdesk.backend.protocol.facts import Buffer
from kvdesk.backend.settings import AUTOMATIC_MARGIN, EngineSettings
from kvdesk.errors import KvdeskError, SettingsError

log = logging.getLogger(__name__)

UNFORESEEN = "The plan failed in a way that was not foreseen; kvdesk.log has the details."

IDLE_S = 5.0
"""After so long without a question the helper ends and its memory (47 to 92 MiB) is free; answers stay known, and the next question
waits 0.3 to 0.5 s for another helper."""


@dataclass(frozen=True)
class _Question:
    request_id: int
    path: Path
    answer: Callable[[Pricer, int, Path], PlanEvent]


class Planner:
    """One model at a time; all methods return at once with the request's number, from any thread."""

    def __init__(
        self,
        on_event: Callable[[PlanEvent], None],
        read_domains: Callable[[], Sequence[Reading]],
        calibration_path: Path,
        margin_bytes: int = AUTOMATIC_MARGIN,
        idle_s: float = IDLE_S,
        niceness: int = 0,
    ) -> None:
        """``niceness`` is that of the thread and of its helper process (Linux). ``read_domains`` gives the machine's domains now (from the monitor's last sample; it must not block)."""
        self._on_event = on_event
        self._read_domains = read_domains
        self._calibration = Calibration(calibration_path)
        self._margin_bytes = margin_bytes
        self._idle_s = idle_s
        self._niceness = niceness
        self._waiting: dict[str, _Question] = {}
        self._changed = threading.Condition()
        self._last_id = 0
        self._ending = False
        self._let_go = False
        self._pricer: Pricer | None = None
        self._thread = threading.Thread(target=self._run, name="planner", daemon=True)
        self._thread.start()

    @property
    def helper_pid(self) -> int | None:
        """The helper's process id while it lives; what it holds on a GPU is not another program's."""
        pricer = self._pricer
        return pricer.helper_pid if pricer else None

    @property
    def history(self) -> tuple[Comparison, ...]:
        """Predictions and what came of them, oldest first."""
        return self._calibration.history

    def set_margin(self, margin_bytes: int) -> None:
        """What the OOM line keeps free, from the next question on."""
        self._margin_bytes = margin_bytes

    def plan(self, path: Path, settings: EngineSettings, purpose: str = "") -> int:
        """Price ``settings`` for the model at ``path``, with the longest context that fits and, when it does not fit,
        priced options: PlanReady. Only the newest question of each ``purpose`` is sure of an answer."""

        def answer(pricer: Pricer, request_id: int, path: Path) -> PlanEvent:
            readings = self._read_domains()
            quick = pricer.plan(settings, readings, with_max=False)
            self._on_event(PlanReady(request_id, path, pricer.model, quick, is_final=False))
            full = pricer.plan(settings, readings, with_options=True)
            return PlanReady(request_id, path, pricer.model, full, is_final=True)

        return self._ask(f"plan {purpose}", path, answer)

    def predict(self, path: Path, settings: EngineSettings) -> int:
        """Price ``settings``, and nothing else: PlanReady, once."""

        def answer(pricer: Pricer, request_id: int, path: Path) -> PlanEvent:
            plan = pricer.plan(settings, self._read_domains(), with_max=False)
            return PlanReady(request_id, path, pricer.model, plan, is_final=True)

        return self._ask("predict", path, answer)

    def curve(
        self, path: Path, settings: EngineSettings, types: Sequence[tuple[str, str]], points: int = CURVE_POINTS
    ) -> int:
        """Memory against context length for each pair of cache types: CurveReady."""
        return self._ask(
            "curve",
            path,
            lambda pricer, request_id, path: CurveReady(
                request_id, path, pricer.curve(settings, types, self._read_domains(), points)
            ),
        )

    def choices(self, path: Path, settings: EngineSettings, choices: Mapping[str, Sequence[str]]) -> int:
        """What each of ``choices`` of a context setting would cost more than ``settings``: ChoicesReady."""
        return self._ask(
            "choices",
            path,
            lambda pricer, request_id, path: ChoicesReady(request_id, path, pricer.choices(settings, choices)),
        )

    def capacity(self, path: Path, settings: EngineSettings, n_seqs: Sequence[int], lengths: Sequence[int]) -> int:
        """How many conversations of which length fit: CapacityReady."""
        return self._ask(
            "capacity",
            path,
            lambda pricer, request_id, path: CapacityReady(
                request_id, path, pricer.capacity(settings, n_seqs, lengths, self._read_domains())
            ),
        )

    def kv_table(self, path: Path, settings: EngineSettings) -> int:
        """KV sizes at usual lengths and types: KvTableReady."""
        return self._ask(
            "kv table",
            path,
            lambda pricer, request_id, path: KvTableReady(request_id, path, pricer.kv_table(settings)),
        )

    def growth(self, path: Path, settings: EngineSettings, from_cells: int, to_cells: int, occupied_bytes: int) -> int:
        """What the next growth step needs, the transient copy included: GrowthPriced."""
        return self._ask(
            "growth",
            path,
            lambda pricer, request_id, path: GrowthPriced(
                request_id, path, pricer.growth(settings, from_cells, to_cells, occupied_bytes, self._read_domains())
            ),
        )

    def compare(
        self,
        path: Path,
        settings: EngineSettings,
        buffers: Sequence[Buffer],
        held: dict[str, int | None],
        *,
        checkpoints_bytes: int = 0,
        is_fresh: bool = True,
    ) -> int:
        """Hold a load against its prediction and learn from it: Compared. ``settings.context.n_ctx`` are the cells that
        really exist, ``held`` what the engine holds in each domain after its first reply (RAM: resident). Constants are learned from
        a fresh load alone: later the process holds checkpoints, snapshots and what its allocators keep, too."""

        def answer(pricer: Pricer, request_id: int, path: Path) -> PlanEvent:
            plan = pricer.plan(settings, self._read_domains(), with_max=False)
            comparison = compare(plan, pricer.model, buffers, held, checkpoints_bytes)
            self._calibration.learn(plan, pricer.model, comparison, is_fresh=is_fresh)
            return Compared(request_id, path, comparison)

        return self._ask("compare", path, answer)

    def let_go(self) -> None:
        """End the helper process soon (a network worker serves one client at a time: before the engine loads). Answers
        stay known; the next question starts a new helper."""
        with self._changed:
            self._let_go = True
            self._changed.notify()

    def stop(self) -> None:
        """End helper and thread; returns when both are gone."""
        with self._changed:
            self._ending = True
            self._changed.notify()
        self._thread.join()

    # --- the thread ---------------------------------------------------------------------------------------------

    def _ask(self, kind: str, path: Path, answer: Callable[[Pricer, int, Path], PlanEvent]) -> int:
        with self._changed:
            self._last_id += 1
            self._waiting.pop(kind, None)  # the newest of a kind waits at the end of the line
            self._waiting[kind] = _Question(self._last_id, path, answer)
            self._changed.notify()
            return self._last_id

    def _run(self) -> None:
        if self._niceness:
            with contextlib.suppress(AttributeError, OSError):
                os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), self._niceness)
        while (question := self._next()) is not None:
            try:
                event = question.answer(self._pricer_of(question.path), question.request_id, question.path)
            except KvdeskError as error:
                nearest = error.nearest if isinstance(error, SettingsError) else None
                event = PlanFailed(question.request_id, question.path, type(error).__name__, str(error), nearest)
            except Exception:
                log.exception("a plan for %s failed", question.path)
                event = PlanFailed(question.request_id, question.path, "PlanError", UNFORESEEN)
            self._on_event(event)
        if self._pricer:
            self._pricer.let_go()

    def _next(self) -> _Question | None:
        """The question that waits longest; ends the helper when told to, or after an idle while. None: end."""
        while True:
            with self._changed:
                if not (self._waiting or self._ending or self._let_go):
                    self._let_go = not self._changed.wait(self._idle_s)
                if self._ending:
                    return None
                release, self._let_go = self._let_go, False
                question = self._waiting.pop(next(iter(self._waiting))) if self._waiting else None
            if release and self._pricer:
                self._pricer.let_go()
            if question:
                return question
            if release:
                with self._changed:
                    self._changed.wait_for(lambda: self._waiting or self._ending or self._let_go)

    def _pricer_of(self, path: Path) -> Pricer:
        """The pricer of the model at ``path``; another model's, or a changed file's, takes its place."""
        if self._pricer and not _is_same(self._pricer, path):
            self._pricer.let_go()
            self._pricer = None
        if self._pricer is None:
            self._pricer = Pricer(read_model_file(path), self._calibration, self._margin_bytes)
        self._pricer.margin_bytes = self._margin_bytes
        return self._pricer


def _is_same(pricer: Pricer, path: Path) -> bool:
    """Whether ``pricer`` is for the file that is there now, or was there until it was removed under a loaded model."""
    return pricer.model.path == path and (pricer.model.is_current() or not path.exists())
