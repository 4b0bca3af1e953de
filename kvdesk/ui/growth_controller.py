"""Decides with planner and user whether a running reply may have a larger context. UI thread.

The engine waits for the answer; what fits grows at once, what does not is asked about, with priced ways out.
"""

from __future__ import annotations

from PySide6.QtCore import QObject, Signal

from kvdesk.backend import messages as m
from kvdesk.backend import planner as p
from kvdesk.backend.engine import Died, Engine, EngineEvent
from kvdesk.backend.plan import Curve
from kvdesk.ui.engine_controller import EngineController
from kvdesk.ui.numbers import format_bytes, format_tokens
from kvdesk.ui.options_card import OptionsCard, PricedChoice

CONVERT_TO = ("q8_0", "q4_0")


class GrowthController(QObject):
    """One growth step at a time, the one that the engine waits for."""

    happened = Signal(str, str, object)
    """For the session log and the chart: kind, sentence, values."""

    def __init__(
        self,
        engine: Engine,
        planner: p.Planner,
        models: EngineController,
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
            case m.TurnFinished() | m.Failed() | Died():
                self._wanted = None
                self._card.hide()
            case _:
                pass

    def on_plan_event(self, event: p.PlanEvent) -> None:
        """The price of the step is known, or cannot be: then it is tried, and llama.cpp says."""
        match event:
            case p.CurveReady():
                self._curves = event.curves
            case p.GrowthPriced() if event.request_id == self._request_id and self._wanted:
                if event.cost.fits is False:
                    peak = format_bytes(sum(event.cost.peak_bytes.values()))
                    words = self.tr("Growing to {0} tokens would take {1} for a moment, over the OOM line.")
                    self._ask(words.format(format_tokens(self._wanted.to_cells), peak))
                else:
                    self._answer(m.GrowAnswer("grow"))
            case p.PlanFailed() if event.request_id == self._request_id and self._wanted:
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
        context = self._models.context
        at_limit = context is not None and wanted.from_cells >= context.n_ctx_limit
        choices: list[PricedChoice] = []
        if at_limit and wanted.to_cells > wanted.from_cells:
            longer = self.tr("Context Length {0}").format(format_tokens(wanted.to_cells))
            choices.append(self._priced("grow", longer, types, wanted.to_cells))
        elif not at_limit:
            choices.append(self._priced("grow", self.tr("Grow anyway"), types, wanted.to_cells, is_risky=True))
        if wanted.settings.flash_attn != "off" and not at_limit:
            choices += [
                self._priced(
                    f"convert {kind}", self.tr("KV cache to {0}, then grow").format(kind), (kind, kind), wanted.to_cells
                )
                for kind in CONVERT_TO
                if kind not in types
            ]
        trim = self.tr("Forget the oldest half and go on")
        choices += [
            self._priced("trim", trim, types, wanted.from_cells),
            self._priced("stop", self.tr("Stop here"), types, wanted.from_cells),
        ]
        title = self.tr("The reply waits: the context is full at {0} tokens").format(format_tokens(wanted.from_cells))
        self._card.show_choices(title, why, choices, can_dismiss=False)
        self.happened.emit("overflow", why, {"at_tokens": wanted.at_tokens})

    def _priced(
        self, key: str, label: str, types: tuple[str, str], cells: int, *, is_risky: bool = False
    ) -> PricedChoice:
        """A choice that leads to ``cells`` of ``types``, priced by the planner's curve where it has one."""
        wanted = self._wanted
        curve = next((c for c in self._curves if (c.type_k, c.type_v) == types), None)
        now = next(
            (
                c
                for c in self._curves
                if wanted and (c.type_k, c.type_v) == (wanted.settings.type_k, wanted.settings.type_v)
            ),
            None,
        )
        then = curve.at(cells) if curve else None
        before = now.at(wanted.from_cells) if now and wanted else None
        line = curve.oom_line_bytes if curve else None
        return PricedChoice(
            key,
            label,
            then.total_bytes if then else None,
            then.total_bytes - before.total_bytes if then and before else None,
            then.device_bytes <= line if then and line is not None else None,
            is_risky=is_risky,
        )

    def _on_choice_taken(self, key: str) -> None:
        if self._wanted:
            action, _, kind = key.partition(" ")
            self._card.hide()
            self._answer(m.GrowAnswer(action, kind, kind))

    def _answer(self, answer: m.GrowAnswer) -> None:
        self._wanted = None
        self._engine.send(answer)
