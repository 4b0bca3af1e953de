"""One editor for one field of a settings dataclass: number box, tick box, choice, text. UI thread.

What a field is comes from its type and metadata (settings.py); placing and labelling is form.py's job.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Protocol, cast, get_type_hints

from PySide6.QtCore import QModelIndex, QPersistentModelIndex, Qt, Signal, SignalInstance
from PySide6.QtGui import QColor, QPainter, QPalette, QStandardItemModel
from PySide6.QtWidgets import (
    QCheckBox,
    QComboBox,
    QDoubleSpinBox,
    QLineEdit,
    QPlainTextEdit,
    QSizePolicy,
    QStyle,
    QStyledItemDelegate,
    QStyleOptionViewItem,
)

from kvdesk.ui.widgets.wheel import leave_wheel_to_the_page

NOTE_ROLE = Qt.ItemDataRole.UserRole + 1
LARGEST_INTEGER = 2**53
"""Where a double stops holding every integer; larger values do not occur in settings."""


class FieldEditor(Protocol):
    """What form.py needs of every editor (all of them are QWidgets). Setting a value emits nothing."""

    value_changed: SignalInstance

    def value(self) -> Any: ...
    def set_value(self, value: Any) -> None: ...


class NumberBox(QDoubleSpinBox):
    """A whole or decimal number, shown in ``shown_unit`` of ``shown_scale`` where the field has one (bytes in MiB).

    Doubles hold every seed exactly, which an int box (32 bits, signed) does not.
    """

    value_changed = Signal()

    def __init__(self, field: dataclasses.Field[Any], is_whole: bool) -> None:
        super().__init__()
        meta = field.metadata
        self._is_whole = is_whole
        self._scale = meta.get("shown_scale", 1)
        self.setDecimals(0 if is_whole else 2)
        self.setSingleStep(meta.get("step", 1 if is_whole else 0.05) / self._scale)
        if "shown_unit" in meta:
            self.setSuffix(f" {meta['shown_unit']}")
        self.set_bounds(meta.get("minimum"), meta.get("maximum"))
        self.setSpecialValueText(meta.get("minimum_means", ""))
        self.setGroupSeparatorShown(meta.get("unit") == "tokens" or self._scale != 1)
        self.lineEdit().setTextMargins(6, 0, 0, 0)  # a style sheet's padding does not reach the text
        self.setKeyboardTracking(False)  # 3, 32, 327 on the way to 32768 are nobody's wish
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        leave_wheel_to_the_page(self)
        self.valueChanged.connect(self.value_changed)

    def set_bounds(self, minimum: float | None, maximum: float | None) -> None:
        """The least and the most that can be entered; None is no bound."""
        low = -LARGEST_INTEGER if minimum is None else minimum
        high = LARGEST_INTEGER if maximum is None else maximum
        self.setRange(low / self._scale, high / self._scale)

    def value(self) -> int | float:
        number = super().value() * self._scale
        return round(number) if self._is_whole else round(number, self.decimals())

    def set_value(self, value: float) -> None:
        self.blockSignals(True)
        self.setValue(value / self._scale)
        self.blockSignals(False)

    def minimumSizeHint(self):  # the longest text would be the bound 2**53
        return self.sizeHint()

    def sizeHint(self):
        hint = super().sizeHint()
        texts = ("88,888,888" + self.suffix(), self.specialValueText())
        hint.setWidth(max(self.fontMetrics().horizontalAdvance(text) for text in texts) + 44)
        return hint


class TickBox(QCheckBox):
    """A setting that is on or off."""

    value_changed = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.clicked.connect(self.value_changed)

    def value(self) -> bool:
        return self.isChecked()

    def set_value(self, value: bool) -> None:
        self.setChecked(value)


class ChoiceBox(QComboBox):
    """One of several words; a choice can carry a note (its price) or be closed with the reason why."""

    value_changed = Signal()

    def __init__(self, choices: tuple[str, ...]) -> None:
        super().__init__()
        for choice in choices:
            self.addItem(choice, choice)
        self.setItemDelegate(_NotedItems(self))
        self.setMinimumContentsLength(8)
        self.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        leave_wheel_to_the_page(self)
        self.activated.connect(self.value_changed)

    def value(self) -> str:
        return self.currentData()

    def set_value(self, value: str) -> None:
        index = self.findData(value)
        if index < 0:  # a value that this version does not list is shown, not swapped for another
            self.addItem(value, value)
            index = self.count() - 1
        self.setCurrentIndex(index)

    def set_choice_text(self, choice: str, text: str) -> None:
        """Show ``choice`` as ``text``."""
        self.setItemText(self._row(choice), text)

    def set_choice_note(self, choice: str, note: str) -> None:
        """Show ``note`` beside ``choice`` in the open list ("-480 MiB"); "" removes it."""
        row = self._row(choice)
        if (self.itemData(row, NOTE_ROLE) or "") != note:
            self.setItemData(row, note, NOTE_ROLE)
            self._widen_list()

    def set_choice_problem(self, choice: str, reason: str) -> None:
        """Close ``choice`` and say why in the list and in its tool tip; "" opens it again."""
        row = self._row(choice)
        if (self.itemData(row, Qt.ItemDataRole.ToolTipRole) or "") == reason:
            return  # widening the list asks every row for its size
        cast("QStandardItemModel", self.model()).item(row).setEnabled(not reason)
        self.setItemData(row, reason or None, Qt.ItemDataRole.ToolTipRole)
        self.setItemData(row, reason or None, Qt.ItemDataRole.AccessibleDescriptionRole)
        self._widen_list()

    def _row(self, choice: str) -> int:
        row = self.findData(choice)
        if row < 0:
            raise KeyError(choice)
        return row

    def _widen_list(self) -> None:
        self.view().setMinimumWidth(self.view().sizeHintForColumn(0) + 16)


class TextLine(QLineEdit):
    """Free text, or with ``is_list`` words parted by commas as a tuple."""

    value_changed = Signal()

    def __init__(self, is_list: bool) -> None:
        super().__init__()
        self._is_list = is_list
        self.editingFinished.connect(self._on_editing_finished)
        self._said = self.value()

    def value(self) -> str | tuple[str, ...]:
        if not self._is_list:
            return self.text()
        return tuple(part.strip() for part in self.text().split(",") if part.strip())

    def set_value(self, value: str | tuple[str, ...]) -> None:
        self.setText(value if isinstance(value, str) else ", ".join(value))
        self._said = self.value()

    def _on_editing_finished(self) -> None:
        if self.value() != self._said:  # leaving an untouched line says nothing
            self._said = self.value()
            self.value_changed.emit()


class TextBox(QPlainTextEdit):
    """Free text of several lines."""

    value_changed = Signal()

    def __init__(self, n_lines: int, placeholder: str) -> None:
        super().__init__()
        self.setPlaceholderText(placeholder)
        self.setTabChangesFocus(True)
        self.document().setDocumentMargin(6)
        self.setFixedHeight(n_lines * self.fontMetrics().lineSpacing() + 20)
        self.textChanged.connect(self.value_changed)

    def value(self) -> str:
        return self.toPlainText()

    def set_value(self, value: str) -> None:
        if self.toPlainText() != value:  # else the cursor would jump while typing
            self.blockSignals(True)
            self.setPlainText(value)
            self.blockSignals(False)


def make_editor(
    dataclass_type: type, field: dataclasses.Field[Any]
) -> NumberBox | TickBox | ChoiceBox | TextLine | TextBox:
    """The editor that suits ``field`` of ``dataclass_type``; TypeError for a type that no editor knows."""
    kind = get_type_hints(dataclass_type)[field.name]
    if "lines" in field.metadata:
        return TextBox(field.metadata["lines"], field.metadata["placeholder"])
    if "choices" in field.metadata:
        return ChoiceBox(tuple(field.metadata["choices"]))
    if kind is bool:
        return TickBox()
    if kind in (int, float):
        return NumberBox(field, is_whole=kind is int)
    if kind in (str, tuple[str, ...]):
        return TextLine(is_list=kind is not str)
    raise TypeError(f"no editor for {dataclass_type.__name__}.{field.name}: {kind}")


class _NotedItems(QStyledItemDelegate):
    """Paints a choice with its note, or with the reason why it is closed, muted at the right."""

    def initStyleOption(self, option: QStyleOptionViewItem, index: QModelIndex | QPersistentModelIndex) -> None:
        super().initStyleOption(option, index)
        if not index.flags() & Qt.ItemFlag.ItemIsEnabled:  # a style sheet gives closed items the colour of open ones
            option.palette.setColor(QPalette.ColorRole.Text, _muted(option.palette))

    def paint(
        self, painter: QPainter, option: QStyleOptionViewItem, index: QModelIndex | QPersistentModelIndex
    ) -> None:
        super().paint(painter, option, index)
        note = _note(index)
        if note:
            painter.save()
            is_selected = bool(option.state & QStyle.StateFlag.State_Selected)
            painter.setPen(option.palette.color(QPalette.ColorRole.Text) if is_selected else _muted(option.palette))
            painter.drawText(
                option.rect.adjusted(0, 0, -8, 0), Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter, note
            )
            painter.restore()

    def sizeHint(self, option: QStyleOptionViewItem, index: QModelIndex | QPersistentModelIndex):
        hint = super().sizeHint(option, index)
        if note := _note(index):
            hint.setWidth(hint.width() + 32 + option.fontMetrics.horizontalAdvance(note))
        hint.setHeight(max(hint.height(), 24))
        return hint


def _note(index: QModelIndex | QPersistentModelIndex) -> str:
    return index.data(Qt.ItemDataRole.ToolTipRole) or index.data(NOTE_ROLE) or ""


def _muted(palette: QPalette) -> QColor:
    """The text's colour, fainter. Style sheets make PlaceholderText too faint for what is to be read."""
    color = QColor(palette.color(QPalette.ColorGroup.Active, QPalette.ColorRole.Text))
    color.setAlphaF(0.7)
    return color
