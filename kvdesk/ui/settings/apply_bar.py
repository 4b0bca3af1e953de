"""The price bar under the settings: price, verdict, what applying does, and the buttons. UI thread; decides nothing."""

from __future__ import annotations

from PySide6.QtCore import Signal
from PySide6.QtWidgets import QFrame, QHBoxLayout, QPushButton, QVBoxLayout, QWidget

from kvdesk.ui.widgets.numbers import format_bytes, format_bytes_delta
from kvdesk.ui.widgets.plain_text import PlainLabel, plain_tip
from kvdesk.ui.widgets.theme import set_role, set_small


class ApplyBar(QFrame):
    """Asks with three buttons; what does not fit is never refused, only called by its name."""

    apply_clicked = Signal()
    reset_clicked = Signal()
    fit_clicked = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._fits: bool | None = None
        self._is_pending = False
        self._written = ""
        self._verdict = self._effect = self._problem = ""
        self._tone = "muted"
        self._price = PlainLabel()
        self._price.setToolTip(self.tr("What this setting takes in all, and the difference to what is applied"))
        self._price.setAccessibleName(self.tr("Price of the edited settings"))
        self._words = PlainLabel()
        self._words.setWordWrap(True)
        set_small(self._words)
        self._fit = QPushButton(self.tr("Fit"))
        self._fit.setToolTip(self.tr("Fit it for me: the longest context that fits with these settings"))
        self._fit.clicked.connect(self.fit_clicked)
        self._reset = QPushButton(self.tr("Reset"))
        self._reset.setToolTip(self.tr("Back to what is applied"))
        self._reset.clicked.connect(self.reset_clicked)
        self._apply = QPushButton(self.tr("Apply"))
        set_role(self._apply, "primary")
        self._apply.clicked.connect(self.apply_clicked)
        top = QHBoxLayout()
        top.setSpacing(4)
        top.addWidget(self._price, 1)
        for button in (self._fit, self._reset, self._apply):
            top.addWidget(button)
        column = QVBoxLayout(self)
        column.setContentsMargins(12, 4, 12, 8)
        column.setSpacing(2)
        column.addLayout(top)
        column.addWidget(self._words)
        self._show_price(self.tr("No price yet"))

    def show_pending(self) -> None:
        """The settings were edited: the price that stands there is the old one until the next ``show_price``."""
        self._is_pending = True
        self._show_price(self._written)

    def show_price(
        self, total_bytes: int | None, delta_bytes: int | None, sentence: str, fits: bool | None, alarm: str
    ) -> None:
        """The total, the difference to what is applied, the plan's verdict and its alarm ("", "amber", "red")."""
        self._is_pending = False
        self._fits = fits
        price = format_bytes(total_bytes)
        if delta_bytes is not None:
            price += f" ({format_bytes_delta(delta_bytes)})"
        self._show_price(price)
        self._verdict = sentence
        self._tone = alarm or ("red" if fits is False else "muted")
        self._show_words()

    def show_effect(self, words: str, problem: str, is_changed: bool, can_fit: bool) -> None:
        """What applying does, or the ``problem`` that keeps it from being possible."""
        self._effect, self._problem = words, problem
        self._show_words()
        self._apply.setEnabled(is_changed and not problem)
        self._reset.setEnabled(is_changed)
        self._fit.setEnabled(can_fit and not problem)
        is_risky = self._fits is False and self._apply.isEnabled()
        self._apply.setText(self.tr("Apply anyway") if is_risky else self.tr("Apply"))
        set_role(self._apply, "danger" if is_risky else "primary")

    @property
    def verdict(self) -> str:
        """The plan's sentence, as it was shown last."""
        return self._verdict

    @property
    def price(self) -> str:
        """The text of the price shown."""
        return self._price.text()

    @property
    def words(self) -> str:
        """What stands under the price."""
        return self._words.text()

    @property
    def effect(self) -> str:
        """What applying will do, or why it is impossible."""
        return self._problem or self._effect

    def _show_price(self, price: str) -> None:
        self._written = price
        self._price.setText(self.tr("pricing... ({0})").format(price) if self._is_pending else price)
        set_role(self._price, "muted" if self._is_pending else "heading")

    def _show_words(self) -> None:
        """One line: what is impossible has no price, and what does not fit is said before what it does."""
        parts = [self._problem] if self._problem else [self._verdict.rstrip("."), self._effect.rstrip(".")]
        self._words.setText(". ".join(part for part in parts if part))
        set_role(self._words, "red" if self._problem else self._tone)
        self._words.setToolTip(plain_tip(self._words.text()))
