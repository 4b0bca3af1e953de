"""The bar on top: which model, what it is doing, tokens, cache types and the memory of every domain. UI thread."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from PySide6.QtCore import Qt, Signal
from PySide6.QtGui import QFont, QResizeEvent
from PySide6.QtWidgets import (
    QFrame,
    QHBoxLayout,
    QMenu,
    QProgressBar,
    QPushButton,
    QSizePolicy,
    QToolButton,
    QWidget,
)

from kvdesk.backend.planning.verdict import alarm
from kvdesk.backend.protocol.facts import ContextFacts, KvState
from kvdesk.backend.system.samples import Sample
from kvdesk.shown_text import shown_line
from kvdesk.ui.memory.composition import room_under_line
from kvdesk.ui.memory.gauges import CONTEXT_AMBER, CONTEXT_RED
from kvdesk.ui.widgets.icons import icon
from kvdesk.ui.widgets.numbers import format_bytes, format_bytes_pair, format_percent, format_tokens, short_tokens
from kvdesk.ui.widgets.plain_text import PlainLabel, plain_tip
from kvdesk.ui.widgets.status_line import Fact, StatusLine, elided
from kvdesk.ui.widgets.theme import Theme, set_role

NAME_WIDTH_PX = (120, 300)
NARROW_PX = 1000


@dataclass(frozen=True)
class RecentModel:
    """A line of the model menu: ``note`` is its size or why it cannot be opened."""

    path: str
    name: str
    note: str = ""
    is_usable: bool = True


class ModelBar(QFrame):
    """Model menu, Eject, state or progress, and the line of figures."""

    model_chosen = Signal(str)
    """The path of a model in the menu."""
    open_requested = Signal()
    eject_requested = Signal()
    cancel_requested = Signal()
    """Stop the load."""
    reload_requested = Signal()
    """Start the engine again after it died."""

    def __init__(self, theme: Theme, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._theme = theme
        self._name = ""
        self._state = "stopped"
        self._context: ContextFacts | None = None
        self._kv: KvState | None = None
        self._sample: Sample | None = None
        self._model = QToolButton()
        self._model.setPopupMode(QToolButton.ToolButtonPopupMode.InstantPopup)
        self._model.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextOnly)
        self._model.setAccessibleName(self.tr("Model"))
        self._model.setStyleSheet("QToolButton::menu-indicator { image: none; }")
        font = self._model.font()
        font.setWeight(QFont.Weight.DemiBold)
        self._model.setFont(font)
        self._menu = QMenu(self._model)
        self._menu.setToolTipsVisible(True)
        self._model.setMenu(self._menu)
        self._eject = QToolButton()
        self._eject.setText(self.tr("Eject"))
        self._eject.setToolTip(self.tr("Unload the model and give its memory back"))
        self._eject.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextBesideIcon)
        self._eject.clicked.connect(self.eject_requested)
        self._words = PlainLabel()
        self._words.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Preferred)
        self._progress = QProgressBar()
        self._progress.setRange(0, 1000)
        self._progress.setTextVisible(False)
        self._progress.setAccessibleName(self.tr("Load progress"))
        self._progress.setMaximumWidth(320)
        self._cancel = QPushButton(self.tr("Cancel"))
        self._cancel.setToolTip(self.tr("Stop loading"))
        self._cancel.clicked.connect(self.cancel_requested)
        self._reload = QPushButton(self.tr("Reload"))
        set_role(self._reload, "primary")
        self._reload.clicked.connect(self.reload_requested)
        self._face = StatusLine(theme)
        self._face.setAccessibleName(self.tr("Context and memory"))
        row = QHBoxLayout(self)
        row.setContentsMargins(8, 4, 12, 4)
        row.setSpacing(8)
        for widget in (self._model, self._eject, self._words, self._progress, self._cancel, self._reload):
            row.addWidget(widget)
        row.addWidget(self._face, 1)
        self.show_recent(())
        self.set_theme(theme)
        self.show_state("stopped")

    # --- what it is told -------------------------------------------------------------------------------------------

    def show_recent(self, models: Sequence[RecentModel]) -> None:
        """The models in the menu, the most recent first."""
        self._menu.clear()
        for model in models:
            text = f"{shown_line(model.name)}\t{model.note}" if model.note else shown_line(model.name)
            action = self._menu.addAction(text, partial(self.model_chosen.emit, model.path))
            action.setToolTip(plain_tip(model.path))
            action.setEnabled(model.is_usable)
        if models:
            self._menu.addSeparator()
        self._menu.addAction(self.tr("Open…"), self.open_requested.emit)

    def show_model(self, name: str, path: str = "") -> None:
        """The model that is loaded or being loaded; "" for none."""
        self._name = shown_line(name)
        self._model.setToolTip(plain_tip(path) or self.tr("Choose a model"))
        self._refresh()

    def show_state(self, state: str) -> None:
        """The engine's state, in engine.EngineState's words."""
        self._state = state
        if state == "loading":
            self._progress.setValue(0)
        self._refresh()

    def show_progress(self, fraction: float) -> None:
        """How much of the weights is read, 0.0 to 1.0."""
        self._progress.setValue(round(fraction * 1000))
        self._refresh()

    def show_context(self, context: ContextFacts | None) -> None:
        """The context that exists; None when there is none."""
        self._context = context
        self._kv = context.kv if context else None
        self._refresh_face()

    def show_kv(self, kv: KvState) -> None:
        """Show how many cells are occupied and allocated now."""
        self._kv = kv
        self._refresh_face()

    def show_sample(self, sample: Sample) -> None:
        """Show what every domain has free and in use."""
        self._sample = sample
        self._refresh_face()

    def set_theme(self, theme: Theme) -> None:
        """Take the theme's colours."""
        self._theme = theme
        self._face.set_theme(theme)
        self._eject.setIcon(icon("eject", theme))

    @property
    def state_words(self) -> str:
        """What the bar says the engine is doing."""
        return self._words.text()

    @property
    def face_texts(self) -> list[str]:
        """The facts there is room for."""
        return self._face.visible_texts()

    def resizeEvent(self, event: QResizeEvent) -> None:
        """A narrow bar shortens the name and drops the word on Eject."""
        super().resizeEvent(event)
        self._refresh()

    # --- inside ------------------------------------------------------------------------------------------------------

    def _refresh(self) -> None:
        is_narrow = self.width() < NARROW_PX
        width = max(NAME_WIDTH_PX[0], min(NAME_WIDTH_PX[1], self.width() // 4))
        self._model.setText(elided(self._model, self._name or self.tr("No model"), width) + "  ▾")
        loading, warming, died = (self._state == name for name in ("loading", "warming", "died"))
        style = Qt.ToolButtonStyle.ToolButtonIconOnly if is_narrow else Qt.ToolButtonStyle.ToolButtonTextBesideIcon
        self._eject.setToolButtonStyle(style)
        self._eject.setVisible(bool(self._name) and not loading and not died)
        self._eject.setEnabled(self._state in ("ready", "empty"))
        self._progress.setVisible(loading or warming)
        self._progress.setMaximum(0 if warming else 1000)  # warming has no measure
        self._cancel.setVisible(loading)
        self._reload.setVisible(died)
        self._words.setText(self._state_words())
        self._words.setVisible(bool(self._words.text()))
        set_role(self._words, "red" if died else "muted")

    def _state_words(self) -> str:
        if self._state == "loading":
            return self.tr("loading {0}").format(format_percent(self._progress.value() / 1000))
        words = {
            "starting": self.tr("starting"),
            "warming": self.tr("warming up"),
            "ready": self.tr("ready"),
            "generating": self.tr("generating"),
            "changing": self.tr("changing the context"),
            "died": self.tr("the engine died"),
        }
        return words.get(self._state, "")

    def _refresh_face(self) -> None:
        facts = [*self._context_facts(), *self._memory_facts()]
        self._face.show_facts(facts)

    def _context_facts(self) -> list[Fact]:
        context, kv = self._context, self._kv
        if context is None or kv is None:
            return []
        share = kv.cells_used / context.n_ctx_limit if context.n_ctx_limit else 0.0
        tone = "red" if share >= CONTEXT_RED else "amber" if share >= CONTEXT_AMBER else ""
        tokens = self.tr("{0} / {1} tokens").format(short_tokens(kv.cells_used), short_tokens(context.n_ctx_limit))
        tip = self.tr("{0} of {1} tokens of context in use, {2} cells allocated ({3})").format(
            format_tokens(kv.cells_used),
            format_tokens(context.n_ctx_limit),
            format_tokens(kv.cells_allocated),
            format_bytes(kv.bytes_allocated),
        )
        settings = context.settings
        attention = self.tr("on") if context.flash_attn else self.tr("off")
        return [
            Fact(tokens, tip, 0, tone),
            Fact(
                f"K {settings.type_k} V {settings.type_v}",
                self.tr("KV cache types: K {0}, V {1}").format(settings.type_k, settings.type_v),
                3,
            ),
            Fact(f"FA {attention}", self.tr("Flash Attention: {0}").format(attention), 4),
        ]

    def _memory_facts(self) -> list[Fact]:
        facts = []
        for reading in self._sample.domains if self._sample else ():
            name = self.tr("RAM") if reading.kind == "ram" else _short_device(reading.name)
            text = f"{name} {format_bytes_pair(reading.used_bytes, reading.capacity_bytes)}"
            room = room_under_line(reading, self._sample.margin_bytes) if self._sample else None
            tip = self.tr("{0}: {1} in use by all programs, the engine holds {2}").format(
                text, format_bytes(reading.used_bytes), format_bytes(reading.engine_bytes)
            )
            tone = alarm(room, reading.capacity_bytes)
            if tone and room is not None:  # never by colour alone
                low = self.tr("{0} left").format(format_bytes(room)) if room >= 0 else self.tr("over the line")
                text = f"⚠ {text}, {low}"
            facts.append(Fact(text, tip, 1 if tone or reading.kind == "ram" else 2, tone))
        return facts


def _short_device(name: str) -> str:
    """ "CUDA0" -> "GPU0" as people call it; other devices keep llama.cpp's name."""
    return name.replace("CUDA", "GPU") if name.startswith("CUDA") else name
