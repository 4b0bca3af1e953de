"""Owns the state of a session: takes every event, and sends the commands that go with a decision. No Qt.

Any thread. State and commands are in one order, because both happen under one lock; listeners are called under it, so
they must return at once and must not call back (the bridge posts to the UI thread, the recording hands over to its own).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import replace

from kvdesk.backend.engine.engine import Engine
from kvdesk.backend.engine.engine_event import EngineState, FellBack
from kvdesk.backend.gguf.model_file import ModelFile
from kvdesk.backend.planning.planner import Planner
from kvdesk.backend.protocol import messages as m
from kvdesk.backend.session.reduce import reduce
from kvdesk.backend.session.session_event import (
    AskEnded,
    Change,
    ContextBegun,
    GrowthAnswered,
    GrowthAsked,
    LoadAsked,
    LoadBegun,
    MarginChosen,
    ReplyBegun,
    SessionEvent,
    SettingsChosen,
)
from kvdesk.backend.session.state import Choice, Reply, SessionState
from kvdesk.backend.settings import EngineSettings, pad256

Listener = Callable[[Change], None]


class Session:
    """One engine, one planner, one state."""

    def __init__(self, held: Callable[[], Mapping[str, int | None]], margin_bytes: int = m.Load.margin_bytes) -> None:
        """``held`` gives what the engine holds in each domain by the newest sample (bytes; None: not known)."""
        self._held = held
        self._state = SessionState(margin_bytes=margin_bytes)
        self._listeners: tuple[Listener, ...] = ()
        self._lock = threading.Lock()
        self._engine: Engine | None = None
        self._planner: Planner | None = None

    def attach(self, engine: Engine, planner: Planner) -> None:
        """The two services whose callback is ``take``; before anything else."""
        self._engine, self._planner = engine, planner

    def add_listener(self, listener: Listener) -> None:
        """``listener`` gets every further change, on the thread of its event."""
        self._listeners = (*self._listeners, listener)

    @property
    def state(self) -> SessionState:
        """The newest state; any thread may read it."""
        return self._state

    @property
    def engine(self) -> Engine:
        """The engine, for what concerns no state (its log's path, its end)."""
        assert self._engine
        return self._engine

    @property
    def planner(self) -> Planner:
        """The planner, for prices that concern no state."""
        assert self._planner
        return self._planner

    def take(self, event: SessionEvent) -> None:
        """Go on with ``event``; the callback of engine and planner."""
        with self._lock:
            self._take(event)

    def _take(self, event: SessionEvent) -> None:
        before = self._state
        self._state = now = reduce(before, event)
        change = Change(event, before, now)
        if isinstance(event, FellBack) and now.target.file and not event.settings.model.rpc_servers:
            self.planner.predict(now.target.file.path, now.target.settings)
        if isinstance(event, m.TurnFinished) and now.context and now.in_force.file:
            self._compare(now, is_fresh=before.is_fresh)
        for listener in self._listeners:
            listener(change)

    def _compare(self, now: SessionState, *, is_fresh: bool) -> None:
        """After a reply, when memory has been touched: hold what the engine really has against the plan."""
        file, settings, context = now.in_force.file, now.in_force.settings, now.context
        assert file
        assert context
        cells = pad256(context.n_ctx) * settings.context.n_seq_max
        real = replace(settings, context=replace(settings.context, n_ctx=cells))
        kept = context.kv.checkpoints_bytes
        held = dict(self._held())
        self.planner.compare(file.path, real, context.buffers, held, checkpoints_bytes=kept, is_fresh=is_fresh)

    # --- a model ----------------------------------------------------------------------------------------------------

    def ask_load(self, choice: Choice) -> None:
        """Have ``choice`` priced: ``state.asked`` has the price as soon as it is known."""
        assert choice.file
        with self._lock:
            request_id = self.planner.plan(choice.file.path, choice.settings, "load")
            self._take(LoadAsked(choice, request_id))

    def end_asking(self) -> None:
        """What was asked about is not loaded."""
        self.take(AskEnded())

    def load(self, choice: Choice) -> None:
        """Load ``choice`` now; a reply under way is stopped."""
        assert choice.file
        if choice.settings.model.rpc_servers:
            self.planner.let_go()
        self._end_reply()
        with self._lock:
            self._take(LoadBegun(choice))
            if self._state.predicted is None and not choice.settings.model.rpc_servers:
                self.planner.predict(choice.file.path, choice.settings)
            self.engine.load(choice.file.path, choice.settings, choice.template)

    def reload(self, n_ctx: int | None = None, file: ModelFile | None = None, *, without_gpu: bool = False) -> None:
        """Load again what was loaded, perhaps with another context length or without any graphics card; ``file`` is its
        header as it is now."""
        choice = self._state.target
        if choice.file:
            choice = replace(choice, file=file or choice.file)
            if n_ctx:
                context = replace(choice.settings.context, n_ctx=n_ctx)
                choice = replace(choice, settings=replace(choice.settings, context=context))
            if without_gpu:
                model = replace(choice.settings.model, n_gpu_layers=0)
                choice = replace(choice, settings=replace(choice.settings, model=model))
            self.load(choice)

    def eject(self) -> None:
        """Unload the model; the process stays."""
        self._end_reply()
        self.engine.send(m.Unload())

    def apply(self, settings: EngineSettings) -> bool:
        """Put ``settings`` in force: a new context, or the model anew where the weights are concerned.

        False: the engine is busy, nothing was done.
        """
        state = self._state
        if not state.file:
            self.take(SettingsChosen(settings))
        elif state.is_busy:
            return False
        elif settings.model != state.settings.model or state.engine is not EngineState.READY:
            self.load(replace(state.target, settings=settings))
        else:
            with self._lock:
                self._take(ContextBegun(settings.context))
                self.engine.send(m.SetContext(settings.context))
        return True

    def set_margin(self, margin_bytes: int) -> None:
        """What the OOM line keeps free, from now on."""
        self.planner.set_margin(margin_bytes)
        self.engine.margin_bytes = margin_bytes
        self.take(MarginChosen(margin_bytes))

    # --- a reply ----------------------------------------------------------------------------------------------------

    def generate(self, command: m.Generate) -> None:
        """Have the engine answer a conversation."""
        with self._lock:
            self._take(ReplyBegun(Reply(command.request_id, command.overflow)))
            self.engine.send(command)

    def price_growth(self) -> None:
        """Ask what the growth step takes that the engine waits for."""
        with self._lock:
            state = self._state
            if state.growth and state.file:
                wanted = state.growth.wanted
                used = state.context.kv.bytes_used if state.context else 0
                request_id = self.planner.growth(
                    state.file.path, state.settings, wanted.from_cells, wanted.to_cells, used
                )
                self._take(GrowthAsked(request_id))

    def answer_growth(self, answer: m.GrowAnswer) -> None:
        """Tell the engine whether the context may grow."""
        with self._lock:
            if self._state.growth:
                self._take(GrowthAnswered())
                self.engine.send(answer)

    def stop(self) -> None:
        """Abort what is under way."""
        self.engine.stop()

    def _end_reply(self) -> None:
        """What is wanted now shall not wait for the end of a reply; what is written of it is kept."""
        if self._state.engine is EngineState.GENERATING:
            self.engine.stop()
