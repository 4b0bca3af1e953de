"""The settings panel: every setting of the engine, what is impossible and why, what a change costs and does. UI thread.

Prices come from the planner and are told to it; it only asks (``settings_edited``) and proposes (``apply_requested``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import cast

from PySide6.QtCore import QSignalBlocker, Signal
from PySide6.QtWidgets import (
    QGridLayout,
    QHBoxLayout,
    QLabel,
    QSpinBox,
    QVBoxLayout,
    QWidget,
)

from kvdesk.backend.gguf.model_file import ModelFile
from kvdesk.backend.protocol.facts import Device
from kvdesk.backend.settings import (
    ALLOCATIONS,
    AUTOMATIC_MARGIN,
    CACHE_TYPES,
    FLASH_ATTN,
    MARGIN_HELP,
    ContextSettings,
    EngineSettings,
    ModelSettings,
    context_problems,
)
from kvdesk.sizes import MIB
from kvdesk.ui.settings.apply_bar import ApplyBar
from kvdesk.ui.settings.context_length import ContextLength
from kvdesk.ui.settings.form import FieldForm
from kvdesk.ui.settings.settings_effect import effect_words
from kvdesk.ui.widgets.numbers import format_bytes_delta
from kvdesk.ui.widgets.scroll_column import ScrollColumn
from kvdesk.ui.widgets.theme import Theme, set_role
from kvdesk.ui.widgets.wheel import leave_wheel_to_the_page

CACHE_FIELDS = ("type_k", "type_v", "flash_attn", "swa_full", "offload_kqv")
ALLOCATION_FIELDS = ("allocation", "initial_ctx")
COMPUTE_FIELDS = ("n_batch", "n_ubatch", "n_seq_max", "n_threads")
MODEL_FIELDS = ("n_gpu_layers", "n_cpu_moe", "use_mmap", "use_extra_bufts", "rpc_servers")
LABEL_WIDTH_PX = 124
"""One width for the labels of all sections, so that the editors line up."""
CHOICES = {"type_k": CACHE_TYPES, "type_v": CACHE_TYPES, "flash_attn": FLASH_ATTN, "allocation": ALLOCATIONS}


class SettingsPanel(QWidget):
    """What is applied, what is being edited, and the difference in words and bytes."""

    settings_edited = Signal(EngineSettings)
    """EngineSettings after each change, also while dragging: for repricing."""
    apply_requested = Signal(EngineSettings)
    """EngineSettings to apply."""
    fit_requested = Signal(EngineSettings)
    """"Fit it for me": the longest context that fits with these EngineSettings is wanted."""
    margin_chosen = Signal(object)
    """Bytes to keep free below the ceiling: an int, which Qt's own would cut to 32 bits."""

    def __init__(self, theme: Theme, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._theme = theme
        self._applied = EngineSettings()
        self._edited = EngineSettings()
        self._model: ModelFile | None = None
        self._is_loaded = False
        self._has_gpu = False
        self._tokens_in_use = 0
        self._prompt_speed: float | None = None
        self._length = ContextLength(theme)
        self._length.n_ctx_edited.connect(self.edit_n_ctx)
        self._forms = {
            fields: FieldForm(kind, fields)
            for kind, fields in (
                (ContextSettings, CACHE_FIELDS),
                (ContextSettings, ALLOCATION_FIELDS),
                (ContextSettings, COMPUTE_FIELDS),
                (ModelSettings, MODEL_FIELDS),
            )
        }
        for fields, form in self._forms.items():
            form.changed.connect(lambda value, fields=fields: self._on_form_changed(fields, value))
        self._bar = ApplyBar()
        self._bar.apply_clicked.connect(lambda: self.apply_requested.emit(self._edited))
        self._bar.reset_clicked.connect(lambda: self.edit(self._applied))
        self._bar.fit_clicked.connect(lambda: self.fit_requested.emit(self._edited))
        self._name_choices()
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(0)
        layout.addWidget(self._build_page(), 1)
        layout.addWidget(self._bar)
        self.show_devices((), has_rpc=False)
        self.show_settings(self._applied)

    # --- what it is told -------------------------------------------------------------------------------------------

    def show_settings(self, applied: EngineSettings) -> None:
        """``applied`` is in force; edits are dropped. Emits nothing."""
        self._applied = applied
        self._show_edited(applied)

    def show_model(self, model: ModelFile | None) -> None:
        """The chosen model: its own length, layers and head sizes say what is possible."""
        self._model = model
        self._length.show_model(model.n_ctx_train or None if model else None, model.positions.most if model else None)
        form = self._forms[MODEL_FIELDS]
        form.set_stops("n_gpu_layers", (*range(model.n_layer + 1), -1) if model else ())
        form.set_bounds("n_gpu_layers", -1, model.n_layer + 1 if model else None)
        form.set_bounds("n_cpu_moe", -1, model.n_layer if model else None)
        reason = "" if model is None or model.sliding_window else self.tr("This model has no sliding window")
        self._forms[CACHE_FIELDS].set_disabled_reason("swa_full", reason)
        self._refresh()

    def show_devices(self, devices: Sequence[Device], has_rpc: bool) -> None:
        """What the engine could use: GPU Offload and Network Workers are closed, with the reason, where there is nothing."""
        self._has_gpu = any(device.kind in ("gpu", "igpu", "rpc") for device in devices)
        form = self._forms[MODEL_FIELDS]
        form.set_disabled_reason("rpc_servers", "" if has_rpc else self.tr("This llama.cpp was built without RPC"))
        form.set_note(
            "rpc_servers", self.tr("The protocol has no authentication: trusted networks only.") if has_rpc else ""
        )
        self._refresh()

    def show_loaded(self, is_loaded: bool) -> None:
        """Whether a model is loaded: says whether applying does something now."""
        self._is_loaded = is_loaded
        self._refresh()

    def show_tokens_in_use(self, n_tokens: int, prompt_tokens_per_second: float | None = None) -> None:
        """The conversation's length and the measured reading speed: what reading again would cost."""
        self._tokens_in_use, self._prompt_speed = n_tokens, prompt_tokens_per_second
        self._refresh()

    def show_price(
        self,
        total_bytes: int | None,
        delta_bytes: int | None = None,
        sentence: str = "",
        fits: bool | None = None,
        alarm: str = "",
    ) -> None:
        """The plan's answer to ``settings_edited``: the total, the difference to now, the verdict."""
        self._bar.show_price(total_bytes, delta_bytes, sentence, fits, alarm)
        self._refresh()

    def show_choice_prices(self, field: str, delta_bytes: Mapping[str, int | None]) -> None:
        """What each choice of ``field`` would add or save, shown in its list ("q8_0: -480 MiB")."""
        form = self._form_of(field)
        for choice, delta in delta_bytes.items():
            form.set_choice_note(field, choice, format_bytes_delta(delta) if delta else "")

    def show_margin(self, margin_bytes: int) -> None:
        """What is kept free below the ceiling."""
        with QSignalBlocker(self._margin):
            self._margin.setValue(margin_bytes // MIB)

    def edit(self, settings: EngineSettings) -> None:
        """Change what is being edited, as if the user had."""
        if settings != self._edited:
            self._show_edited(settings)
            self.settings_edited.emit(settings)

    def edit_n_ctx(self, n_ctx: int) -> None:
        """Change the Context Length, as if the user had (the curve's dot does)."""
        self.edit(replace(self._edited, context=replace(self._edited.context, n_ctx=n_ctx)))

    def set_theme(self, theme: Theme) -> None:
        """Take the theme's colours."""
        self._theme = theme
        self._length.set_theme(theme)

    @property
    def edited(self) -> EngineSettings:
        """The settings as they stand in the panel."""
        return self._edited

    @property
    def effect(self) -> str:
        """What applying will do, as written."""
        return self._bar.effect

    @property
    def price(self) -> str:
        """The price as written."""
        return self._bar.price

    # --- building ----------------------------------------------------------------------------------------------------

    def _build_page(self) -> QWidget:
        page = QWidget()
        column = QVBoxLayout(page)
        column.setContentsMargins(12, 12, 12, 12)
        column.setSpacing(8)
        column.addWidget(self._length)
        column.addWidget(self._forms[ALLOCATION_FIELDS])
        sections = (
            (self.tr("KV cache"), self._forms[CACHE_FIELDS]),
            (self.tr("Devices and weights"), self._forms[MODEL_FIELDS]),
            (self.tr("Computing"), self._forms[COMPUTE_FIELDS]),
            (self.tr("Safety margin"), self._build_margin()),
        )
        for title, widget in sections:
            heading = QLabel(title)
            set_role(heading, "heading")
            column.addSpacing(4)
            column.addWidget(heading)
            column.addWidget(widget)
        for form in self._forms.values():
            cast("QGridLayout", form.layout()).setColumnMinimumWidth(0, LABEL_WIDTH_PX)
        column.addStretch(1)
        return ScrollColumn(page, self.tr("Model settings"))

    def _build_margin(self) -> QWidget:
        self._margin = QSpinBox()
        leave_wheel_to_the_page(self._margin)
        self._margin.setRange(AUTOMATIC_MARGIN // MIB, 1 << 20)
        self._margin.setSingleStep(128)
        self._margin.setSpecialValueText(self.tr("automatic"))
        self._margin.setValue(AUTOMATIC_MARGIN // MIB)
        self._margin.setSuffix(" MiB")
        self._margin.setGroupSeparatorShown(True)
        self._margin.setKeyboardTracking(False)
        self._margin.lineEdit().setTextMargins(6, 0, 0, 0)  # a style sheet's padding does not reach the text
        self._margin.setAccessibleName(self.tr("Kept free"))
        self._margin.valueChanged.connect(lambda mebibytes: self.margin_chosen.emit(mebibytes * MIB))
        tip = MARGIN_HELP
        return _labelled(self.tr("Kept free"), self._margin, tip)

    def _name_choices(self) -> None:
        for choice, text in (("auto", self.tr("Auto")), ("on", self.tr("On")), ("off", self.tr("Off"))):
            self._forms[CACHE_FIELDS].set_choice_text("flash_attn", choice, text)
        for choice, text in (("grow", self.tr("Grow with chat")), ("reserve", self.tr("Reserve at once"))):
            self._forms[ALLOCATION_FIELDS].set_choice_text("allocation", choice, text)

    # --- inside ------------------------------------------------------------------------------------------------------

    def _form_of(self, field: str) -> FieldForm:
        return next(form for fields, form in self._forms.items() if field in fields)

    def _on_form_changed(self, fields: Sequence[str], value: ContextSettings | ModelSettings) -> None:
        part = "model" if isinstance(value, ModelSettings) else "context"
        changed = {name: getattr(value, name) for name in fields}
        self.edit(replace(self._edited, **{part: replace(getattr(self._edited, part), **changed)}))

    def _show_edited(self, settings: EngineSettings) -> None:
        self._edited = settings
        self._length.set_value(settings.context.n_ctx)
        for fields, form in self._forms.items():
            form.set_value(settings.model if fields == MODEL_FIELDS else settings.context)
        self._refresh()

    def _refresh(self) -> None:
        problems = self._problems(self._edited.context)
        for fields, form in self._forms.items():
            if fields != MODEL_FIELDS:
                form.set_problems(problems)
        self._close_impossible_choices(problems)
        self._describe_offload()
        self._forms[ALLOCATION_FIELDS].set_field_visible("initial_ctx", self._edited.context.allocation == "grow")
        self._bar.show_effect(
            effect_words(self._applied, self._edited, self._is_loaded, self._tokens_in_use, self._prompt_speed),
            next(iter(problems.values()), ""),
            is_changed=self._edited != self._applied,
            can_fit=self._model is not None,
        )

    def _problems(self, context: ContextSettings) -> dict[str, str]:
        model = self._model
        if model is None:
            return context_problems(context)
        return context_problems(
            context, (model.head_size_k, model.head_size_k_swa), (model.head_size_v, model.head_size_v_swa)
        )

    def _close_impossible_choices(self, now: Mapping[str, str]) -> None:
        """A choice that would make a problem which is not there now is closed, and says why."""
        context = self._edited.context
        for field, choices in CHOICES.items():
            form = self._form_of(field)
            for choice in choices:
                problems = self._problems(replace(context, **{field: choice}))
                new = [reason for name, reason in problems.items() if name not in now or name == field]
                form.set_choice_problem(field, choice, new[0] if new else "")

    def _describe_offload(self) -> None:
        form = self._forms[MODEL_FIELDS]
        offloads = self._has_gpu or bool(self._edited.model.rpc_servers)
        reason = "" if offloads else self.tr("No GPU that this llama.cpp can use, and no network worker is set")
        form.set_disabled_reason("n_gpu_layers", reason)
        self._forms[CACHE_FIELDS].set_disabled_reason("offload_kqv", reason)
        has_experts = self._model is None or self._model.expert_count > 0
        form.set_disabled_reason("n_cpu_moe", reason if has_experts else self.tr("This model has no experts"))
        layers = self._model.n_layer + 1 if self._model else None
        n = self._edited.model.n_gpu_layers
        if layers is None:
            note = ""
        elif n == 0:
            note = self.tr("Off: all layers stay on the CPU, and the GPU is not touched")
        elif n < 0 or n >= layers:
            note = self.tr("Max: all {0} layers, the output among them").format(layers)
        else:
            note = self.tr("{0} of {1} layers, counted from the output").format(n, layers)
        form.set_note("n_gpu_layers", note)


def _labelled(text: str, editor: QWidget, tip: str) -> QWidget:
    row = QWidget()
    layout = QHBoxLayout(row)
    layout.setContentsMargins(0, 0, 0, 0)
    layout.setSpacing(12)
    label = QLabel(text)
    label.setMinimumWidth(LABEL_WIDTH_PX)
    label.setBuddy(editor)
    for widget in (label, editor):
        widget.setToolTip(tip)
    layout.addWidget(label)
    layout.addWidget(editor, 1)
    return row
