"""Ways out when memory does not suffice: a sentence, priced choices one click each, and undo. UI thread; decides nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from PySide6.QtCore import Qt, Signal
from PySide6.QtWidgets import QFrame, QGridLayout, QHBoxLayout, QPushButton, QVBoxLayout, QWidget

from kvdesk.backend.planning.plan import Option
from kvdesk.backend.protocol.messages import GrowAnswer
from kvdesk.backend.settings import ContextSettings, EngineSettings
from kvdesk.ui.widgets.empty_layout import empty_layout
from kvdesk.ui.widgets.numbers import format_bytes, format_bytes_delta
from kvdesk.ui.widgets.plain_text import PlainLabel, plain_tip
from kvdesk.ui.widgets.theme import Theme, set_role


@dataclass(frozen=True)
class ForgetOldest:
    """Stay within the context: the oldest turns are no longer shown to the model."""


Answer = EngineSettings | ContextSettings | GrowAnswer | ForgetOldest
"""What a choice asks for: load with these settings, put these in force, tell the engine so, or forget."""


@dataclass(frozen=True)
class PricedChoice:
    """One way out. ``key`` names it among the others, ``answer`` is what it asks for; None for bytes is "not known",
    ``note`` says what it does besides.

    ``fits`` is told in words beside the price. ``is_risky`` is drawn as such ("Load anyway").
    """

    key: str
    label: str
    total_bytes: int | None = None
    difference_bytes: int | None = None
    fits: bool | None = None
    note: str = ""
    is_risky: bool = False
    answer: Answer | None = None


def choices_of(options: Sequence[Option]) -> tuple[PricedChoice, ...]:
    """The plan's options as choices, keyed by their place ("0", "1", ...), those that fit first."""
    numbered = sorted(enumerate(options), key=lambda pair: pair[1].fits is not True)
    return tuple(
        PricedChoice(
            str(i), option.label, option.total_bytes, option.difference_bytes, option.fits, answer=option.settings
        )
        for i, option in numbered
    )


class OptionsCard(QFrame):
    """Shown while a decision is wanted; after one is taken it says so and offers to undo it."""

    choice_taken = Signal(PricedChoice)
    undo_requested = Signal()
    """Take the choice back."""
    dismissed = Signal()

    def __init__(self, theme: Theme, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._theme = theme
        self._choices: tuple[PricedChoice, ...] = ()
        self._taken: PricedChoice | None = None
        self._buttons: dict[str, QPushButton] = {}
        set_role(self, "card")
        self.setAccessibleName(self.tr("Ways to make it fit"))
        self._title = PlainLabel()
        self._title.setWordWrap(True)
        set_role(self._title, "heading")
        self._sentence = PlainLabel()
        self._sentence.setWordWrap(True)
        set_role(self._sentence, "muted")
        self._rows = QWidget()
        self._grid = QGridLayout(self._rows)
        self._grid.setContentsMargins(0, 0, 0, 0)
        self._grid.setHorizontalSpacing(12)
        self._grid.setVerticalSpacing(4)
        self._grid.setColumnStretch(0, 1)
        self._done = PlainLabel()
        self._done.setWordWrap(True)
        self._undo = QPushButton(self.tr("Undo"))
        self._undo.clicked.connect(self._on_undo_clicked)
        self._close = QPushButton(self.tr("Dismiss"))
        set_role(self._close, "flat")
        self._close.clicked.connect(self.dismiss)
        bottom = QHBoxLayout()
        bottom.addWidget(self._done, 100)
        bottom.addStretch(1)
        bottom.addWidget(self._undo)
        bottom.addWidget(self._close)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(12, 12, 12, 12)
        layout.setSpacing(8)
        for widget in (self._title, self._sentence, self._rows):
            layout.addWidget(widget)
        layout.addLayout(bottom)
        self.hide()

    def show_choices(
        self, title: str, sentence: str, choices: Sequence[PricedChoice], can_dismiss: bool = True
    ) -> None:
        """Ask. With ``can_dismiss`` false an answer is waited for (a paused reply)."""
        self._choices, self._taken = tuple(choices), None
        self._title.setText(title)
        self._sentence.setText(sentence)
        self._sentence.setVisible(bool(sentence))
        self._close.setVisible(can_dismiss)
        self._fill()
        self._refresh()
        self.show()

    def show_taken(self, choice: PricedChoice, words: str = "") -> None:
        """``choice`` is in force; ``words`` say what came of it (empty: its label)."""
        self._taken = choice
        self._done.setText(words or self.tr("Done: {0}").format(choice.label))
        self._refresh()

    def set_theme(self, theme: Theme) -> None:
        """Take the theme's colours (all of them come from the style sheet)."""
        self._theme = theme

    @property
    def buttons(self) -> dict[str, QPushButton]:
        """The choices' buttons by the key of the choice."""
        return self._buttons

    def row_texts(self) -> list[str]:
        """Every choice as it is written, its price included."""
        return [f"{choice.label}: {self._price_words(choice)}" for choice in self._choices]

    @property
    def can_close(self) -> bool:
        """Whether it is open and no answer is waited for."""
        return self.isVisible() and self._close.isVisible()

    def dismiss(self) -> None:
        """Close it, as its button does."""
        self.hide()
        self.dismissed.emit()

    # --- inside ------------------------------------------------------------------------------------------------------

    def _fill(self) -> None:
        empty_layout(self._grid)
        self._buttons = {}
        for row, choice in enumerate(self._choices):
            button = QPushButton(choice.label)
            button.setStyleSheet("text-align: left;")
            price = PlainLabel(self._price_words(choice))
            price.setAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
            set_role(price, {True: "green", False: "red", None: "muted"}[choice.fits])
            set_role(button, "danger" if choice.is_risky else "primary" if row == 0 and choice.fits else "")
            button.setAccessibleDescription(f"{price.text()} {choice.note}")
            button.setToolTip(plain_tip(choice.note))
            button.clicked.connect(lambda _=False, choice=choice: self._on_choice_clicked(choice))
            self._buttons[choice.key] = button
            self._grid.addWidget(button, 2 * row, 0)
            self._grid.addWidget(price, 2 * row, 1)
            if choice.note:
                note = PlainLabel(choice.note)
                note.setWordWrap(True)
                set_role(note, "muted")
                self._grid.addWidget(note, 2 * row + 1, 0, 1, 2)

    def _price_words(self, choice: PricedChoice) -> str:
        if choice.total_bytes is None and choice.difference_bytes is None and choice.fits is None:
            return ""
        parts = []
        if choice.total_bytes is not None:
            parts.append(format_bytes(choice.total_bytes))
        if choice.difference_bytes is not None:
            delta = format_bytes_delta(choice.difference_bytes)
            parts.append(f"({delta})" if parts else delta)
        words = {True: self.tr("fits"), False: self.tr("does not fit"), None: ""}[choice.fits]
        return ", ".join(part for part in (" ".join(parts), words) if part)

    def _refresh(self) -> None:
        is_done = self._taken is not None
        self._rows.setVisible(not is_done)
        self._sentence.setVisible(not is_done and bool(self._sentence.text()))
        self._done.setVisible(is_done)
        self._undo.setVisible(is_done)
        if is_done:
            self._close.show()

    def _on_choice_clicked(self, choice: PricedChoice) -> None:
        for button in self._buttons.values():
            button.setEnabled(False)  # until show_taken or new choices: one answer only
        self.choice_taken.emit(choice)

    def _on_undo_clicked(self) -> None:
        self._taken = None
        self.hide()
        self.undo_requested.emit()
