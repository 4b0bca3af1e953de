"""The live chart: one card per memory domain and one row of controls for all of them. UI thread.

Fed by ``add_sample`` at the monitor's cadence; numbers show at once, plots come with ``build_now``.
"""

from __future__ import annotations

from collections.abc import Mapping

from PySide6.QtCore import Qt
from PySide6.QtWidgets import QComboBox, QHBoxLayout, QToolButton, QVBoxLayout, QWidget

from kvdesk.backend.protocol.facts import Buffer
from kvdesk.backend.system.samples import Sample
from kvdesk.ui.memory.composition import KV_LAYERS, LAYERS, WEIGHT_LAYERS
from kvdesk.ui.memory.domain_card import DomainCard
from kvdesk.ui.memory.plots.chart_event import ChartEvent
from kvdesk.ui.widgets.theme import Theme, set_role
from kvdesk.ui.widgets.wheel import leave_wheel_to_the_page

RECENT_S = 600.0
LEAST_KV_SHARE = 0.05
"""Below this share of the engine's memory the KV cache is drawn by itself."""
ONLY_KV = frozenset(LAYERS) - KV_LAYERS


class LiveChart(QWidget):
    """All domains, one above another, on one time axis."""

    def __init__(self, theme: Theme, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._theme = theme
        self._cards: dict[str, DomainCard] = {}
        self._buffers: tuple[Buffer, ...] = ()
        self._events: list[ChartEvent] = []
        self._fit: tuple[str, int | None, int | None] = ("", None, None)
        self._full_kv: dict[str, int] = {}
        self._hidden: frozenset[str] = frozenset()
        self._descriptions: dict[str, str] = {}
        self._is_built = False
        self._is_compact = False
        self._follow = self._button(self.tr("Follow"), self.tr("Keep the newest moment in sight (End)"), checkable=True)
        self._follow.setChecked(True)
        self._follow.clicked.connect(self._on_follow_clicked)
        self._whole = self._button(
            self.tr("Session"), self.tr("Show the whole session (Home). In a chart that was clicked the wheel zooms.")
        )
        self._whole.clicked.connect(self._on_whole_clicked)
        self._pause = self._button(self.tr("Pause"), self.tr("Freeze the picture; recording goes on"), checkable=True)
        self._pause.toggled.connect(self._on_pause_toggled)
        self._view = self._build_view()
        self._controls = QWidget()
        row = QHBoxLayout(self._controls)
        row.setContentsMargins(0, 0, 0, 0)
        row.setSpacing(2)
        for button in (self._follow, self._whole, self._pause):
            row.addWidget(button)
        row.addStretch(1)
        row.addWidget(self._view)
        self._layout = QVBoxLayout(self)
        self._layout.setContentsMargins(0, 0, 0, 0)
        self._layout.setSpacing(4)
        self._layout.addWidget(self._controls)

    # --- what it is told -------------------------------------------------------------------------------------------

    def add_sample(self, sample: Sample) -> None:
        """One sample of all domains; a domain seen for the first time gets a card."""
        for reading in sample.domains:
            if reading.name not in self._cards:
                self._add_card(reading.name, reading.kind)
        for card in self._cards.values():
            card.add_sample(sample, self._buffers)
        if self._view.currentData() == "auto":
            self._choose_layers()

    def show_buffers(self, buffers: tuple[Buffer, ...]) -> None:
        """What llama.cpp holds now (or, while a load runs, will hold): splits the samples to come."""
        self._buffers = buffers

    def show_fit(self, device: str, max_n_ctx: int | None, n_ctx_train: int | None = None) -> None:
        """The longest context that fits, said on the card of the domain that sets it ."""
        self._fit = (device, max_n_ctx, n_ctx_train)
        for name, card in self._cards.items():
            card.show_fit(*(self._fit[1:] if name == self._fit[0] else (None, None)))

    def show_full_kv(self, sizes_bytes: Mapping[str, int]) -> None:
        """Domain name -> what its part of the KV cache takes when the context in force is full."""
        self._full_kv = dict(sizes_bytes)
        for name, card in self._cards.items():
            card.show_full_kv(sizes_bytes.get(name))

    def show_ghost(self, sizes_bytes: Mapping[str, tuple[int, int]]) -> None:
        """Domain name -> (all, KV) bytes that the edited setting would take; empty: nothing is edited."""
        for name, card in self._cards.items():
            card.show_ghost(sizes_bytes.get(name))

    def show_replies_left(self, count: int | None) -> None:
        """How many more replies like those so far the context holds, said on the card of the domain that sets it."""
        for name, card in self._cards.items():
            card.show_replies_left(count if name == self._fit[0] else None)

    def show_descriptions(self, descriptions: dict[str, str]) -> None:
        """Domain name -> the device in its maker's words."""
        self._descriptions = descriptions
        for name, card in self._cards.items():
            card.show_description(descriptions.get(name, ""))

    def add_event(self, event: ChartEvent) -> None:
        """Mark an event on every domain's chart."""
        self._events.append(event)
        for card in self._cards.values():
            card.add_event(event)

    def build_now(self) -> None:
        """Make the plots (imports pyqtgraph): once the window has been painted, plot_import.py helps."""
        while self.build_next():
            pass

    def build_next(self) -> bool:
        """Make one more plot; False when all are made, and cards to come get theirs at once."""
        self._is_built = True
        card = next((card for card in self._cards.values() if card.plot is None), None)
        if card is not None:
            card.build_now()
        return card is not None

    def set_compact(self, compact: bool) -> None:
        """Small plots, no legends, no controls."""
        self._is_compact = compact
        self._controls.setVisible(not compact)
        for card in self._cards.values():
            card.set_compact(compact)

    def set_theme(self, theme: Theme) -> None:
        """Take the theme's colours."""
        self._theme = theme
        for card in self._cards.values():
            card.set_theme(theme)

    @property
    def view(self) -> QComboBox:
        """What is drawn: "auto", "all", "without weights", "kv" or "capacity"."""
        return self._view

    @property
    def cards(self) -> dict[str, DomainCard]:
        """The cards by domain name."""
        return self._cards

    # --- inside ------------------------------------------------------------------------------------------------------

    def _button(self, text: str, tip: str, checkable: bool = False) -> QToolButton:
        button = QToolButton()
        button.setText(text)
        button.setToolTip(tip)
        button.setCheckable(checkable)
        button.setFocusPolicy(Qt.FocusPolicy.TabFocus)
        set_role(button, "flat")
        return button

    def _add_card(self, name: str, kind: str) -> None:
        card = DomainCard(name, kind, self._theme)
        self._cards[name] = card
        card.set_compact(self._is_compact)
        card.show_description(self._descriptions.get(name, ""))
        if name == self._fit[0]:
            card.show_fit(*self._fit[1:])
        card.show_full_kv(self._full_kv.get(name))
        card.show_hidden(self._hidden)
        card.part_toggled.connect(self._on_part_toggled)
        for event in self._events:
            card.add_event(event)
        card.following_changed.connect(self._on_following_changed)
        card.range_changed.connect(lambda start, end: self._on_range_changed(card, start, end))
        card.time_pointed.connect(lambda x_s: self._on_time_pointed(card, x_s))
        self._layout.addWidget(card, 1)
        if self._is_built:
            card.build_now()

    def _plots(self) -> list:
        return [card.plot for card in self._cards.values() if card.plot is not None]

    def _on_follow_clicked(self) -> None:
        self._follow.setChecked(True)
        for plot in self._plots():
            plot.follow(RECENT_S)

    def _on_whole_clicked(self) -> None:
        for plot in self._plots():
            plot.show_all()

    def _on_pause_toggled(self, paused: bool) -> None:
        self._pause.setText(self.tr("Resume") if paused else self.tr("Pause"))
        for plot in self._plots():
            plot.set_paused(paused)

    def _build_view(self) -> QComboBox:
        view = QComboBox()
        for key, words in (
            ("auto", self.tr("Automatic")),
            ("all", self.tr("All")),
            ("without weights", self.tr("Without weights")),
            ("kv", self.tr("KV only")),
            ("capacity", self.tr("To capacity")),
        ):
            view.addItem(words, key)
        view.setPlaceholderText(self.tr("Chosen parts"))
        view.setAccessibleName(self.tr("What the chart draws"))
        view.setToolTip(
            self.tr("What is drawn. By itself only the KV cache, where it would be a hair's breadth of the whole.")
        )
        view.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToContents)
        leave_wheel_to_the_page(view)
        view.currentIndexChanged.connect(self._choose_layers)
        return view

    def _choose_layers(self) -> None:
        choice = self._view.currentData()
        if choice is None:
            return
        if choice == "auto":
            choice = "kv" if self._kv_is_a_hair() else "all"
            words = self.tr("Automatic: {0}").format(self._view.itemText(self._view.findData(choice)))
            if self._view.itemText(0) != words:
                self._view.setItemText(0, words)
        self._hide({"kv": ONLY_KV, "without weights": WEIGHT_LAYERS}.get(choice, frozenset()))
        for plot in self._plots():
            plot.set_whole_domain(True if choice == "capacity" else None)

    def _hide(self, hidden: frozenset[str]) -> None:
        if hidden != self._hidden:
            self._hidden = hidden
            for card in self._cards.values():
                card.show_hidden(hidden)

    def _kv_is_a_hair(self) -> bool:
        """Whether the KV cache is too small a part of all to be seen; once it is drawn alone, until it clearly is not."""
        parts = [card.parts for card in self._cards.values() if card.parts is not None]
        kv = sum(one.kv_used + one.kv_free for one in parts)
        share = LEAST_KV_SHARE * (1.5 if self._hidden == ONLY_KV else 1)
        return 0 < kv < share * sum(one.total for one in parts)

    def _on_part_toggled(self, part: str, shown: bool) -> None:
        self._view.setCurrentIndex(-1)
        self._hide(self._hidden - {part} if shown else self._hidden | {part})

    def _on_following_changed(self, following: bool) -> None:
        self._follow.setChecked(following)

    def _on_range_changed(self, changed: DomainCard, start: float, end: float) -> None:
        for card in self._cards.values():
            if card is not changed and card.plot is not None:
                if changed.plot is not None and changed.plot.following:
                    card.plot.follow(end - start)
                else:
                    card.plot.show_range(start, end)

    def _on_time_pointed(self, pointed: DomainCard, x_s: float | None) -> None:
        for card in self._cards.values():
            if card is not pointed and card.plot is not None:
                card.plot.point_at(x_s)
