"""What belongs to one conversation: system prompt, how tokens are chosen, what happens at the context's end. UI thread.

Says what was changed; keeping it with the conversation and using it from the next reply on is the owner's job.
"""

from __future__ import annotations

import dataclasses

from PySide6.QtCore import QSignalBlocker, Qt, Signal
from PySide6.QtWidgets import QHBoxLayout, QPlainTextEdit, QPushButton, QToolButton, QVBoxLayout, QWidget

from kvdesk.backend.sampling import SamplingSettings, sampling_problems
from kvdesk.backend.settings import OVERFLOWS
from kvdesk.ui.settings.field_editor import ChoiceBox
from kvdesk.ui.settings.form import FieldForm
from kvdesk.ui.widgets.plain_text import PlainLabel
from kvdesk.ui.widgets.scroll_column import ScrollColumn
from kvdesk.ui.widgets.theme import Theme, set_role

PROMPT_LINES = 4
RARE = tuple(field.name for field in dataclasses.fields(SamplingSettings) if field.metadata.get("rare"))
"""Settings that are shown when they are asked for, or in force."""
DRY = ("dry_base", "dry_allowed_length", "dry_penalty_last_n", "dry_sequence_breakers")
CUTS = ("top_n_sigma", "typical_p", "xtc_probability", "dynatemp_range")
"""What Mirostat takes the place of, beside Top K, Top P and Min P."""


class SamplingPanel(QWidget):
    """Every change is told at once, so that none is lost when another conversation is opened."""

    changed = Signal(SamplingSettings)
    """The whole SamplingSettings."""
    system_prompt_changed = Signal(str)
    overflow_changed = Signal(str)
    """One of settings.OVERFLOWS."""

    def __init__(self, theme: Theme, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._theme = theme
        self._defaults = SamplingSettings()
        self._prompt = self._build_prompt()
        self._overflow = self._build_overflow()
        self._form = FieldForm(SamplingSettings)
        self._form.changed.connect(self._on_form_changed)
        self._more = self._build_more()
        self._reset = QPushButton(self.tr("Reset to defaults"))
        self._reset.setToolTip(self.tr("As this model's file recommends, the rest as in new conversations"))
        self._reset.clicked.connect(self._on_reset_clicked)
        page = QWidget()
        column = QVBoxLayout(page)
        column.setContentsMargins(12, 12, 12, 12)
        column.setSpacing(8)
        column.addWidget(_heading(self.tr("System Prompt"), self._prompt))
        column.addWidget(self._prompt)
        column.addSpacing(8)
        column.addWidget(_heading(self.tr("Sampling")))
        column.addWidget(self._form)
        buttons = QHBoxLayout()
        buttons.addWidget(self._more)
        buttons.addStretch(1)
        buttons.addWidget(self._reset)
        column.addLayout(buttons)
        column.addSpacing(8)
        overflow = QHBoxLayout()
        overflow.setSpacing(12)
        overflow.addWidget(_heading(self.tr("Context Overflow"), self._overflow))
        overflow.addWidget(self._overflow, 1)
        column.addLayout(overflow)
        column.addStretch(1)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(ScrollColumn(page, self.tr("Chat settings")))
        self._refresh()

    def show_conversation(self, sampling: SamplingSettings, system_prompt: str, overflow: str) -> None:
        """Show what a conversation is set to; emits nothing."""
        self._form.set_value(sampling)
        if any(getattr(sampling, name) != getattr(SamplingSettings(), name) for name in RARE):
            self._more.setChecked(True)  # nothing that is in force is out of sight
        if self._prompt.toPlainText() != system_prompt:  # else the cursor would jump while typing
            with QSignalBlocker(self._prompt):
                self._prompt.setPlainText(system_prompt)
        self._overflow.set_value(overflow)
        self._refresh()

    def set_defaults(self, sampling: SamplingSettings) -> None:
        """What Reset goes back to."""
        self._defaults = sampling
        self._refresh()

    def sampling(self) -> SamplingSettings:
        """The sampling as it stands in the panel."""
        return self._form.value()

    def set_theme(self, theme: Theme) -> None:
        """Take the theme's colours (all of them come from the style sheet)."""
        self._theme = theme

    def _build_more(self) -> QToolButton:
        more = QToolButton()
        more.setText(self.tr("All samplers"))
        more.setToolTip(self.tr("Penalties, DRY, XTC, typical, Mirostat, logit bias, grammar"))
        more.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextBesideIcon)
        more.setCheckable(True)
        more.setAutoRaise(True)
        more.toggled.connect(self._refresh)
        return more

    def _build_prompt(self) -> QPlainTextEdit:
        prompt = QPlainTextEdit()
        prompt.setAccessibleName(self.tr("System Prompt"))
        prompt.setToolTip(self.tr("Comes before the conversation in every prompt; its tokens take context."))
        prompt.setPlaceholderText(self.tr("How the model should behave. Empty: nothing is said."))
        prompt.setTabChangesFocus(True)
        prompt.document().setDocumentMargin(8)
        prompt.setFixedHeight(PROMPT_LINES * prompt.fontMetrics().lineSpacing() + 24)
        prompt.textChanged.connect(lambda: self.system_prompt_changed.emit(prompt.toPlainText()))
        return prompt

    def _build_overflow(self) -> ChoiceBox:
        words = {
            "ask": (self.tr("Ask"), self.tr("Pause and offer ways out, with their price")),
            "stop": (self.tr("Stop at limit"), self.tr("The reply ends where the context does")),
            "truncate-middle": (
                self.tr("Truncate middle"),
                self.tr("Forget the middle; the system prompt, the first exchange and the newest stay"),
            ),
            "rolling": (
                self.tr("Rolling window"),
                self.tr("Forget the oldest turns; the system prompt and the newest stay"),
            ),
        }
        box = ChoiceBox(OVERFLOWS)
        box.setAccessibleName(self.tr("Context Overflow"))
        box.setToolTip(self.tr("What happens when this conversation reaches the Context Length (n_ctx)"))
        for row, policy in enumerate(OVERFLOWS):
            text, meaning = words[policy]
            box.set_choice_text(policy, text)
            box.setItemData(row, meaning, Qt.ItemDataRole.AccessibleDescriptionRole)
            box.set_choice_note(policy, meaning)
        box.value_changed.connect(lambda: self.overflow_changed.emit(box.value()))
        return box

    def _on_form_changed(self, sampling: SamplingSettings) -> None:
        self._refresh()
        self.changed.emit(sampling)

    def _on_reset_clicked(self) -> None:
        self._form.set_value(self._defaults)
        self._on_form_changed(self._defaults)

    def _refresh(self) -> None:
        sampling: SamplingSettings = self._form.value()
        self._reset.setEnabled(sampling != self._defaults)
        is_greedy, has_mirostat = sampling.temperature <= 0, sampling.mirostat != "off"
        greedy = self.tr("Greedy: nothing below but penalties, bias, grammar and what ends a reply has an effect.")
        self._form.set_note("temperature", greedy if is_greedy else "")
        mirostat = self.tr("Mirostat is on and chooses in its place") if has_mirostat and not is_greedy else ""
        for name in ("top_k", "top_p", "min_p", *CUTS):
            self._form.set_disabled_reason(name, mirostat)
        penalties = (sampling.repeat_penalty, sampling.presence_penalty, sampling.frequency_penalty)
        has_penalty = penalties != (1.0, 0.0, 0.0)
        self._form.set_disabled_reason("repeat_last_n", "" if has_penalty else self.tr("Only with a penalty"))
        unused = {
            *(DRY if not sampling.dry_multiplier else ()),
            *(("xtc_threshold",) if not sampling.xtc_probability else ()),
            *(("dynatemp_exponent",) if not sampling.dynatemp_range else ()),
            *(("mirostat_tau", "mirostat_eta") if not has_mirostat else ()),
        }
        for name in RARE:
            self._form.set_field_visible(name, self._more.isChecked() and name not in unused)
        self._more.setArrowType(Qt.ArrowType.DownArrow if self._more.isChecked() else Qt.ArrowType.RightArrow)
        self._form.set_problems(sampling_problems(sampling))


def _heading(text: str, buddy: QWidget | None = None) -> PlainLabel:
    label = PlainLabel(text)
    set_role(label, "heading")
    if buddy is not None:
        label.setBuddy(buddy)
    return label
