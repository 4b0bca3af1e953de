"""Decides with planner and user whether a running reply may have a larger context. UI thread.

The engine waits for the answer; what fits grows at once, what does not is asked about, with priced ways out.
"""

from __future__ import annotations

from PySide6.QtCore import QObject

from kvdesk.backend.protocol import messages as m
from kvdesk.backend.session.session import Session
from kvdesk.backend.session.session_event import Change
from kvdesk.backend.session.state import GrowthQuestion, SessionState
from kvdesk.ui.panels.options_card import OptionsCard, PricedChoice
from kvdesk.ui.settings.curve_prices import Cells, priced_choice
from kvdesk.ui.widgets.numbers import format_bytes, format_tokens

CONVERT_TO = ("q8_0", "q4_0")


class GrowthController(QObject):
    """One growth step at a time, the one that the engine waits for."""

    def __init__(self, session: Session, card: OptionsCard, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._session = session
        self._card = card
        card.choice_taken.connect(self._on_choice_taken)

    def on_change(self, change: Change) -> None:
        """Have the engine's wish priced, answer it or ask about it, and notice when it does not wait any more."""
        before, growth = change.before.growth, change.now.growth
        if growth is before:
            return
        if growth is None:
            self._card.hide()
        elif growth.wanted.failed:
            self._ask(change.now, growth, growth.wanted.failed)
        elif growth.cost is None and not growth.is_unpriced:
            if not growth.request_id:
                self._price()
        elif growth.cost and growth.cost.fits is False:
            peak = format_bytes(sum(growth.cost.peak_bytes.values()))
            words = self.tr("Growing to {0} tokens would take {1} for a moment, over the OOM line.")
            self._ask(change.now, growth, words.format(format_tokens(growth.wanted.to_cells), peak))
        else:  # or it cannot be priced: then it is tried, and llama.cpp says
            self._session.answer_growth(m.GrowAnswer("grow"))

    def _price(self) -> None:
        if self._session.state.file:
            self._session.price_growth()
        else:
            self._session.answer_growth(m.GrowAnswer("grow"))

    def _ask(self, state: SessionState, growth: GrowthQuestion, why: str) -> None:
        wanted, context = growth.wanted, state.context
        types = (wanted.settings.type_k, wanted.settings.type_v)
        n_seq = wanted.settings.n_seq_max
        now, grown = Cells(wanted.from_cells * n_seq, *types), Cells(wanted.to_cells * n_seq, *types)
        at_limit = context is not None and wanted.from_cells >= context.n_ctx_limit
        ways: list[tuple[str, str, Cells, m.GrowAnswer]] = []
        if at_limit and wanted.to_cells > wanted.from_cells:
            longer = self.tr("Context Length {0}").format(format_tokens(wanted.to_cells))
            ways.append(("grow", longer, grown, m.GrowAnswer("grow")))
        elif not at_limit:
            ways.append(("grow", self.tr("Grow anyway"), grown, m.GrowAnswer("grow")))
        if wanted.settings.flash_attn != "off" and not at_limit:
            convert = self.tr("KV cache to {0}, then grow")
            ways += [
                (
                    f"convert {kind}",
                    convert.format(kind),
                    Cells(grown.count, kind, kind),
                    m.GrowAnswer("convert", kind, kind),
                )
                for kind in CONVERT_TO
                if kind not in types
            ]
        ways.append(("trim", self.tr("Forget the oldest half and go on"), now, m.GrowAnswer("trim")))
        ways.append(("stop", self.tr("Stop here"), now, m.GrowAnswer("stop")))
        choices = [
            priced_choice(state.curves, key, label, now, then, answer, is_risky=key == "grow" and not at_limit)
            for key, label, then, answer in ways
        ]
        title = self.tr("The reply waits: the context is full at {0} tokens").format(format_tokens(wanted.from_cells))
        self._card.show_choices(title, why, choices, can_dismiss=False)

    def _on_choice_taken(self, choice: PricedChoice) -> None:
        if isinstance(choice.answer, m.GrowAnswer):
            self._card.hide()
            self._session.answer_growth(choice.answer)
