"""The foot of the settings panel: price, verdict, what applying does, and the buttons. UI thread; decides nothing."""

from __future__ import annotations

from PySide6.QtCore import Signal
from PySide6.QtWidgets import QFrame, QHBoxLayout, QLabel, QPushButton, QVBoxLayout, QWidget

from kvdesk.ui.widgets.numbers import format_bytes, format_bytes_delta
from kvdesk.ui.widgets.theme import set_role


class ApplyBar(QFrame):
    """Asks with three buttons; what does not fit is never refused, only called by its name."""

    apply_clicked = Signal()
    reset_clicked = Signal()
    fit_clicked = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._fits: bool | None = None
        self._price = QLabel(self.tr("No price yet"))
        set_role(self._price, "heading")
        self._price.setToolTip(self.tr("What this setting takes in all, and the difference to what is applied"))
        self._price.setAccessibleName(self.tr("Price of the edited settings"))
        self._verdict = QLabel()
        self._verdict.setWordWrap(True)
        self._verdict.hide()
        self._effect = QLabel()
        self._effect.setWordWrap(True)
        set_role(self._effect, "muted")
        self._fit = QPushButton(self.tr("Fit it for me"))
        self._fit.setToolTip(self.tr("The longest context that fits with these settings"))
        self._fit.clicked.connect(self.fit_clicked)
        self._reset = QPushButton(self.tr("Reset"))
        self._reset.setToolTip(self.tr("Back to what is applied"))
        self._reset.clicked.connect(self.reset_clicked)
        self._apply = QPushButton(self.tr("Apply"))
        set_role(self._apply, "primary")
        self._apply.clicked.connect(self.apply_clicked)
        top = QHBoxLayout()
        top.addWidget(self._price, 1)
        top.addWidget(self._fit)
        buttons = QHBoxLayout()
        buttons.setSpacing(8)
        buttons.addStretch(1)
        buttons.addWidget(self._reset)
        buttons.addWidget(self._apply)
        column = QVBoxLayout(self)
        column.setContentsMargins(12, 8, 12, 12)
        column.setSpacing(4)
        column.addLayout(top)
        column.addWidget(self._verdict)
        column.addWidget(self._effect)
        column.addLayout(buttons)

    def show_price(
        self, total_bytes: int | None, delta_bytes: int | None, sentence: str, fits: bool | None, alarm: str
    ) -> None:
        """The total, the difference to what is applied, the plan's verdict and its alarm ("", "amber", "red")."""
        self._fits = fits
        price = format_bytes(total_bytes)
        if delta_bytes is not None:
            price += f" ({format_bytes_delta(delta_bytes)})"
        self._price.setText(price)
        self._verdict.setText(sentence)
        set_role(self._verdict, alarm or ("red" if fits is False else "muted"))
        self._verdict.setVisible(bool(sentence))

    def show_effect(self, words: str, problem: str, is_changed: bool, can_fit: bool) -> None:
        """What applying does, or the ``problem`` that keeps it from being possible."""
        self._effect.setText(problem or words)
        self._verdict.setVisible(bool(self._verdict.text()) and not problem)  # what is impossible has no price
        set_role(self._effect, "red" if problem else "muted")
        self._apply.setEnabled(is_changed and not problem)
        self._reset.setEnabled(is_changed)
        self._fit.setEnabled(can_fit and not problem)
        is_risky = self._fits is False and self._apply.isEnabled()
        self._apply.setText(self.tr("Apply anyway") if is_risky else self.tr("Apply"))
        set_role(self._apply, "danger" if is_risky else "primary")

    @property
    def price(self) -> str:
        """The price as written."""
        return self._price.text()

    @property
    def effect(self) -> str:
        """What applying will do, as written."""
        return self._effect.text()
