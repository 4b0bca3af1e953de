"""Decides with planner and user whether a running reply may have a larger context. UI thread.

The engine waits for the answer; what fits grows at once, what does not is asked about, with priced ways out.
"""

from __future__ import annotations

from PySide6.QtCore import QObject, Signal

from kvdesk.backend.engine.engine import Engine
from kvdesk.backend.engine.engine_event import Died, EngineEvent
from kvdesk.backend.planning import plan_event as e
from kvdesk.backend.planning.plan import Curve
from kvdesk.backend.planning.planner import Planner
from kvdesk.backend.protocol import messages as m
from kvdesk.ui.controllers.model import ModelController
from kvdesk.ui.panels.options_card import OptionsCard
from kvdesk.ui.settings.curve_prices import Cells, priced_choice
from kvdesk.ui.widgets.numbers import format_bytes, format_tokens

CONVERT_TO = ("q8_0", "q4_0")


class GrowthController(QObject):
    """One growth step at a time, the one that the engine waits for."""

    happened = Signal(str, str, object)
    """For the session log and the chart: kind, sentence, values."""

    def __init__(
        self,
        engine: Engine,
        planner: Planner,
        models: ModelController,
        card: OptionsCard,
        parent: QObject | None = None,
    ) -> None:
        super().__init__(parent)
        self._engine = engine
        self._planner = planner
        self._models = models
        self._card = card
        self._wanted: m.GrowWanted | None = None
        self._request_id = 0
        self._curves: tuple[Curve, ...] = ()
        card.choice_taken.connect(self._on_choice_taken)

    def on_engine_event(self, event: EngineEvent) -> None:
        """Take the engine's wish, and notice when it does not wait any more."""
        match event:
            case m.GrowWanted():
                self._on_grow_wanted(event)
            case m.TurnFinished() | Died():
                self._end()
            case m.Failed() if self._wanted and event.request_id == self._wanted.request_id:  # another's is no answer
                self._end()
            case _:
                pass

    def on_plan_event(self, event: e.PlanEvent) -> None:
        """The price of the step is known, or cannot be: then it is tried, and llama.cpp says."""
        match event:
            case e.CurveReady():
                self._curves = event.curves
            case e.GrowthPriced() if event.request_id == self._request_id and self._wanted:
                if event.cost.fits is False:
                    peak = format_bytes(sum(event.cost.peak_bytes.values()))
                    words = self.tr("Growing to {0} tokens would take {1} for a moment, over the OOM line.")
                    self._ask(words.format(format_tokens(self._wanted.to_cells), peak))
                else:
                    self._answer(m.GrowAnswer("grow"))
            case e.PlanFailed() if event.request_id == self._request_id and self._wanted:
                self._answer(m.GrowAnswer("grow"))
            case _:
                pass

    def _on_grow_wanted(self, wanted: m.GrowWanted) -> None:
        self._wanted = wanted
        file, context = self._models.file, self._models.context
        if wanted.failed:
            self._ask(wanted.failed)
        elif file:
            used = context.kv.bytes_used if context else 0
            self._request_id = self._planner.growth(
                file.path, self._models.settings, wanted.from_cells, wanted.to_cells, used
            )

    def _ask(self, why: str) -> None:
        wanted = self._wanted
        if not wanted:
            return
        types = (wanted.settings.type_k, wanted.settings.type_v)
        now, grown = Cells(wanted.from_cells, *types), Cells(wanted.to_cells, *types)
        context = self._models.context
        at_limit = context is not None and wanted.from_cells >= context.n_ctx_limit
        ways: list[tuple[str, str, Cells]] = []
        if at_limit and wanted.to_cells > wanted.from_cells:
            ways.append(("grow", self.tr("Context Length {0}").format(format_tokens(wanted.to_cells)), grown))
        elif not at_limit:
            ways.append(("grow", self.tr("Grow anyway"), grown))
        if wanted.settings.flash_attn != "off" and not at_limit:
            convert = self.tr("KV cache to {0}, then grow")
            ways += [
                (f"convert {kind}", convert.format(kind), Cells(wanted.to_cells, kind, kind))
                for kind in CONVERT_TO
                if kind not in types
            ]
        ways.append(("trim", self.tr("Forget the oldest half and go on"), now))
        ways.append(("stop", self.tr("Stop here"), now))
        choices = [
            priced_choice(self._curves, key, label, now, then, is_risky=key == "grow" and not at_limit)
            for key, label, then in ways
        ]
        title = self.tr("The reply waits: the context is full at {0} tokens").format(format_tokens(wanted.from_cells))
        self._card.show_choices(title, why, choices, can_dismiss=False)
        self.happened.emit("overflow", why, {"at_tokens": wanted.at_tokens})

    def _on_choice_taken(self, key: str) -> None:
        if self._wanted:
            action, _, kind = key.partition(" ")
            self._card.hide()
            self._answer(m.GrowAnswer(action, kind, kind))

    def _end(self) -> None:
        self._wanted = None
        self._card.hide()

    def _answer(self, answer: m.GrowAnswer) -> None:
        self._wanted = None
        self._engine.send(answer)
