"""A form for any settings dataclass, built from its field metadata: label, editor, slider, and why something is not possible.

UI thread. Decides nothing: problems, notes, prices and closed choices are told to it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

from PySide6.QtCore import QSignalBlocker, Qt, Signal
from PySide6.QtWidgets import QGridLayout, QSlider, QWidget

from kvdesk.ui.settings.field_editor import ChoiceBox, NumberBox, TickBox, make_editor
from kvdesk.ui.widgets.plain_text import PlainLabel
from kvdesk.ui.widgets.theme import set_role, set_small
from kvdesk.ui.widgets.wheel import leave_wheel_to_the_page


class FieldForm(QWidget):
    """One row per field of ``dataclass_type`` (or of ``fields``, in that order).

    ``changed`` carries the whole new value after each change by the user, also while a slider is dragged; setting a
    value from code emits nothing. Fields that are not shown keep what ``set_value`` brought.
    Under a row stands, in this order of weight, its problem, the reason why it is closed, or a note.
    With ``across`` the fields stand side by side, each under its short label.
    """

    changed = Signal(object)

    def __init__(
        self,
        dataclass_type: type,
        fields: Sequence[str] | None = None,
        parent: QWidget | None = None,
        *,
        across: bool = False,
    ) -> None:
        super().__init__(parent)
        self._type = dataclass_type
        self._value: Any = dataclass_type()
        known = {field.name: field for field in dataclasses.fields(dataclass_type)}
        self._rows: dict[str, _Row] = {}
        layout = QGridLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setHorizontalSpacing(8 if across else 12)
        layout.setVerticalSpacing(2 if across else 4)
        layout.setColumnStretch(1, 1)
        for n, name in enumerate(fields or known):
            row = _Row(dataclass_type, known[name], lambda name=name: self._on_row_changed(name))
            if across:
                layout.setColumnStretch(n, 1)
                row.place_across(layout, n)
            else:
                row.place(layout, layout.rowCount())
            self._rows[name] = row
        self.set_value(self._value)

    def value(self) -> Any:
        """The settings as they stand in the form."""
        return self._value

    def set_value(self, value: Any) -> None:
        """Show ``value``; emits nothing."""
        self._value = value
        for name, row in self._rows.items():
            row.set_value(getattr(value, name))

    def set_problem(self, field: str, reason: str) -> None:
        """Say in red under ``field`` why its value is impossible; "" takes it back."""
        self._rows[field].say(problem=reason)

    def set_problems(self, problems: Mapping[str, str]) -> None:
        """The problems of all fields at once (settings.context_problems); fields not named have none."""
        for name, row in self._rows.items():
            row.say(problem=problems.get(name, ""))

    def set_note(self, field: str, note: str) -> None:
        """Say something muted under ``field``, such as what its value costs; "" takes it back."""
        self._rows[field].say(note=note)

    def set_disabled_reason(self, field: str, reason: str) -> None:
        """Close ``field`` and say why; "" opens it again."""
        self._rows[field].say(closed=reason)

    def set_choice_text(self, field: str, choice: str, text: str) -> None:
        """Show ``choice`` of ``field`` as ``text``."""
        self._choice_box(field).set_choice_text(choice, text)

    def set_choice_problem(self, field: str, choice: str, reason: str) -> None:
        """Close one choice of ``field`` and say why in the list; "" opens it again."""
        self._choice_box(field).set_choice_problem(choice, reason)

    def set_choice_note(self, field: str, choice: str, note: str) -> None:
        """Show ``note`` beside a choice in the open list, such as its price ("-480 MiB"); "" takes it back."""
        self._choice_box(field).set_choice_note(choice, note)

    def set_bounds(self, field: str, minimum: float | None, maximum: float | None) -> None:
        """The least and the most that a number may be; None is no bound."""
        editor = cast("NumberBox", self._rows[field].editor)
        with QSignalBlocker(editor):  # a value out of bounds is shown at the bound, but stays until the user moves it
            editor.set_bounds(minimum, maximum)

    def set_stops(self, field: str, stops: Sequence[float]) -> None:
        """Give a number a slider with these positions, left to right; an empty sequence takes it away.

        The number box still takes every value; the slider then stands at the nearest stop. Stops need not be
        evenly spaced or sorted: lengths in powers of two, or 0, 1, ... n_layer, -1 with "all" at the right end.
        """
        self._rows[field].set_stops(stops)

    def set_field_visible(self, field: str, is_visible: bool) -> None:
        """Show or hide a whole row."""
        self._rows[field].set_visible(is_visible)

    def editor(self, field: str) -> QWidget:
        """The widget that edits ``field``, for focus and tests."""
        return self._rows[field].editor

    def slider(self, field: str) -> QSlider | None:
        """The slider of ``field``, if it has one."""
        return self._rows[field].slider

    def message(self, field: str) -> str:
        """The text shown under ``field``."""
        return self._rows[field].message.text()

    def _choice_box(self, field: str) -> ChoiceBox:
        return cast("ChoiceBox", self._rows[field].editor)

    def _on_row_changed(self, name: str) -> None:
        self._value = dataclasses.replace(self._value, **{name: self._rows[name].editor.value()})
        self.changed.emit(self._value)


class _Row:
    """The widgets of one field: label, editor, slider (if it has one) and the line of words below."""

    def __init__(self, dataclass_type: type, field: dataclasses.Field[Any], on_changed: Callable[[], None]) -> None:
        self.editor = make_editor(dataclass_type, field)
        meta = field.metadata
        self._on_changed = on_changed
        self._words = {"problem": "", "closed": "", "note": ""}
        self._is_visible = True
        self._tip = f"{meta['help']}\n({field.name})"
        self.stops: tuple[float, ...] = ()
        self.slider: QSlider | None = None
        self.editor.setObjectName(field.name)
        self.editor.setAccessibleName(meta["label"])
        self.editor.setAccessibleDescription(meta["help"])
        self.editor.value_changed.connect(self._on_editor_changed)
        self.label = PlainLabel(meta["label"])
        self.label.setBuddy(self.editor)
        self.label.setWordWrap(True)
        self.message = PlainLabel()
        self.message.setWordWrap(True)
        self.message.setVisible(False)
        self._is_labelled = True
        self._has_room_for_notes = True
        self._slider_place = (0, 0, 1, 2)
        self._short = meta.get("short", meta["label"])
        self._set_tip(self._tip)

    def place(self, layout: QGridLayout, at: int) -> None:
        """Take three lines of ``layout`` from ``at`` on: label and editor, slider, words."""
        self._layout, self._slider_place = layout, (at + 1, 0, 1, 2)
        if isinstance(self.editor, TickBox):  # the tick stands before its word and both can be clicked
            self.editor.setText(self.label.text())
            self.label.setParent(self.editor)  # not shown, and gone with it
            self.label.setVisible(False)
            self._is_labelled = False
            layout.addWidget(self.editor, at, 0, 1, 2)
        else:
            layout.addWidget(self.label, at, 0)
            layout.addWidget(self.editor, at, 1)
        layout.addWidget(self.message, at + 2, 0, 1, 2)

    def place_across(self, layout: QGridLayout, column: int) -> None:
        """Take one column of ``layout``: label, editor and slider below one another; words go below all columns."""
        self._layout, self._slider_place = layout, (2, column, 1, 1)
        self._has_room_for_notes = False
        self.label.setText(self._short)
        self.label.setWordWrap(False)
        set_role(self.label, "muted")
        set_small(self.label)
        layout.addWidget(self.label, 0, column)
        layout.addWidget(self.editor, 1, column)
        layout.addWidget(self.message, 3 + column, 0, 1, -1)

    def set_value(self, value: Any) -> None:
        self.editor.set_value(value)
        self._follow()

    def set_stops(self, stops: Sequence[float]) -> None:
        self.stops = tuple(stops)
        if self.slider is None and stops:
            self.slider = QSlider(Qt.Orientation.Horizontal)
            leave_wheel_to_the_page(self.slider)
            self.slider.setAccessibleName(self.editor.accessibleName())
            self.slider.setAccessibleDescription(self.editor.accessibleDescription())
            self.slider.setEnabled(self.editor.isEnabled())
            self.slider.valueChanged.connect(self._on_slider_moved)
            self._layout.addWidget(self.slider, *self._slider_place)
        if self.slider is not None:
            with QSignalBlocker(self.slider):
                self.slider.setRange(0, max(0, len(stops) - 1))
                self.slider.setPageStep(max(1, len(stops) // 10))
            self.slider.setVisible(self._is_visible and bool(stops))
        self._follow()

    def say(self, **words: str) -> None:
        self._words.update(words)
        problem, closed, note = self._words.values()
        self.message.setText(problem or closed or note)
        set_role(self.message, "red" if problem else "muted")
        self._show_message()
        self._set_tip("\n".join(part for part in (closed, note, self._tip) if part))
        for widget in (self.label, self.editor, self.slider):
            if widget is not None:
                widget.setEnabled(not closed)

    def set_visible(self, is_visible: bool) -> None:
        self._is_visible = is_visible
        self.label.setVisible(is_visible and self._is_labelled)
        self.editor.setVisible(is_visible)
        self._show_message()
        if self.slider is not None:
            self.slider.setVisible(is_visible and bool(self.stops))

    def _show_message(self) -> None:
        """Side by side, a note is only in the tool tip; what is not possible is always said."""
        problem, closed, note = self._words.values()
        shown = problem or closed or (note if self._has_room_for_notes else "")
        self.message.setVisible(self._is_visible and bool(shown))

    def _set_tip(self, tip: str) -> None:
        self.label.setToolTip(tip)
        self.editor.setToolTip(tip)

    def _follow(self) -> None:
        """Bring the slider to the stop nearest to the number."""
        if self.slider is None or not self.stops or not isinstance(self.editor, NumberBox):
            return
        value = float(self.editor.value())
        nearest = min(range(len(self.stops)), key=lambda i: abs(self.stops[i] - value))
        with QSignalBlocker(self.slider):
            self.slider.setValue(nearest)

    def _on_editor_changed(self) -> None:
        self._follow()
        self._on_changed()

    def _on_slider_moved(self, position: int) -> None:
        if isinstance(self.editor, NumberBox):  # only a number has a slider
            self.editor.set_value(self.stops[position])
            self._on_changed()
