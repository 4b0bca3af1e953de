"""The settings of the engine: the few that are turned while watching, the rest in a drawer, what a change costs and does.

UI thread. Prices are told to it; it only asks (``settings_edited``) and proposes (``apply_requested``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import cast

from PySide6.QtCore import Qt, Signal
from PySide6.QtWidgets import (
    QGridLayout,
    QHBoxLayout,
    QPushButton,
    QSizePolicy,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from kvdesk.backend.gguf.model_file import ModelFile
from kvdesk.backend.protocol.facts import Device
from kvdesk.backend.settings import (
    ALLOCATIONS,
    CACHE_TYPES,
    FLASH_ATTN,
    ContextSettings,
    EngineSettings,
    ModelSettings,
    context_problems,
)
from kvdesk.ui.settings.apply_bar import ApplyBar
from kvdesk.ui.settings.context_length import ContextLength
from kvdesk.ui.settings.form import FieldForm
from kvdesk.ui.settings.margin_field import MarginField
from kvdesk.ui.settings.settings_effect import effect_words
from kvdesk.ui.widgets.icons import icon
from kvdesk.ui.widgets.numbers import format_bytes_delta
from kvdesk.ui.widgets.plain_text import PlainLabel
from kvdesk.ui.widgets.scroll_column import ScrollColumn
from kvdesk.ui.widgets.theme import Theme, set_role

CACHE_FIELDS = ("type_k", "type_v", "flash_attn")
ALLOCATION_FIELDS = ("allocation",)
START_FIELDS = ("initial_ctx",)
OFFLOAD_FIELDS = ("n_gpu_layers",)
PLACE_FIELDS = ("swa_full", "offload_kqv")
COMPUTE_FIELDS = ("n_batch", "n_ubatch", "n_seq_max", "n_threads")
MODEL_FIELDS = ("n_cpu_moe", "use_mmap", "use_extra_bufts", "rpc_servers")
ACROSS = (CACHE_FIELDS, ALLOCATION_FIELDS, OFFLOAD_FIELDS)
"""What stands side by side in the panel itself; the other forms are in the drawer."""
LINKED = ("type_k", "type_v")
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
    link_toggled = Signal()
    """K and V are chosen together from now on, or each by itself: their lists' prices are others."""
    more_toggled = Signal(bool)
    """The drawer is wanted, or not any more."""

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
            fields: FieldForm(kind, fields, across=fields in ACROSS)
            for kind, fields in (
                (ContextSettings, CACHE_FIELDS),
                (ContextSettings, ALLOCATION_FIELDS),
                (ModelSettings, OFFLOAD_FIELDS),
                (ContextSettings, START_FIELDS),
                (ContextSettings, PLACE_FIELDS),
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
        self._margin = MarginField(LABEL_WIDTH_PX)
        self._margin.chosen.connect(self.margin_chosen)
        self._name_choices()
        self.drawer = self._build_drawer()
        """The settings that are rarely turned; the window places it."""
        self._build_layout()
        self.set_theme(theme)
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
        form = self._forms[OFFLOAD_FIELDS]
        form.set_bounds("n_gpu_layers", -1, model.n_layer + 1 if model else None)
        self._forms[MODEL_FIELDS].set_bounds("n_cpu_moe", -1, model.n_layer if model else None)
        reason = "" if model is None or model.sliding_window else self.tr("This model has no sliding window")
        self._forms[PLACE_FIELDS].set_disabled_reason("swa_full", reason)
        self._refresh()

    def show_devices(self, devices: Sequence[Device], has_rpc: bool) -> None:
        """What the engine could use: GPU Offload is shown where there is a GPU; Network Workers say why they are closed."""
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
        self._margin.set_value(margin_bytes)

    def edit(self, settings: EngineSettings) -> None:
        """Change what is being edited, as if the user had."""
        if settings != self._edited:
            self._show_edited(settings)
            self._bar.show_pending()
            self.settings_edited.emit(settings)

    def edit_n_ctx(self, n_ctx: int) -> None:
        """Change the Context Length, as if the user had (the curve's dot does)."""
        self.edit(replace(self._edited, context=replace(self._edited.context, n_ctx=n_ctx)))

    def set_theme(self, theme: Theme) -> None:
        """Take the theme's colours."""
        self._theme = theme
        self._length.set_theme(theme)
        self._link.setIcon(icon("link", theme, theme.accent if self._link.isChecked() else theme.text_muted))

    def focus_first(self) -> None:
        """Give the keyboard to the Context Length."""
        self._length.setFocus()

    def show_more(self, shown: bool) -> None:
        """Open or close the drawer, as its button does."""
        self._more.setChecked(shown)

    @property
    def edited(self) -> EngineSettings:
        """The settings as they stand in the panel."""
        return self._edited

    @property
    def effect(self) -> str:
        """What applying will do, as written."""
        return self._bar.effect

    @property
    def is_linked(self) -> bool:
        """Whether choosing a type for K or V chooses it for both."""
        return self._link.isChecked()

    @property
    def bar(self) -> ApplyBar:
        """The bar with the price and Apply."""
        return self._bar

    @property
    def price(self) -> str:
        """The text of the price shown."""
        return self._bar.price

    # --- building ----------------------------------------------------------------------------------------------------

    def _build_layout(self) -> None:
        self._more = QPushButton(self.tr("More"))
        self._more.setCheckable(True)
        self._more.setToolTip(self.tr("Batch sizes, threads, weights, workers, the safety margin"))
        self._more.setAccessibleName(self.tr("More settings"))
        set_role(self._more, "flat")
        self._more.toggled.connect(self.more_toggled)
        self._link = QToolButton()
        self._link.setCheckable(True)
        self._link.setChecked(True)
        self._link.setToolTip(self.tr("K and V change together"))
        self._link.setAccessibleName(self.tr("K and V change together"))
        self._link.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self._link.toggled.connect(self._on_link_toggled)
        caches = QHBoxLayout()
        caches.setSpacing(4)
        caches.addWidget(self._forms[CACHE_FIELDS], 1)
        caches.addWidget(self._link, 0, Qt.AlignmentFlag.AlignBottom)
        places = QHBoxLayout()
        places.setSpacing(8)
        places.addWidget(self._forms[OFFLOAD_FIELDS], 1)
        places.addWidget(self._forms[ALLOCATION_FIELDS], 1)
        places.addWidget(self._more, 0, Qt.AlignmentFlag.AlignBottom)
        quick = QVBoxLayout()
        quick.setContentsMargins(12, 2, 12, 2)
        quick.setSpacing(4)
        quick.addWidget(self._length)
        quick.addLayout(caches)
        quick.addLayout(places)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(0)
        layout.addLayout(quick)
        layout.addWidget(self._bar)
        self.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Maximum)

    def _build_drawer(self) -> ScrollColumn:
        page = QWidget()
        column = QVBoxLayout(page)
        column.setContentsMargins(12, 12, 12, 12)
        column.setSpacing(8)
        sections = (
            (self.tr("KV cache"), self._forms[START_FIELDS], self._forms[PLACE_FIELDS]),
            (self.tr("Devices and weights"), self._forms[MODEL_FIELDS]),
            (self.tr("Computing"), self._forms[COMPUTE_FIELDS]),
            (self.tr("Safety margin"), self._margin),
        )
        for title, *widgets in sections:
            heading = PlainLabel(title)
            set_role(heading, "heading")
            column.addWidget(heading)
            for widget in widgets:
                column.addWidget(widget)
            column.addSpacing(4)
        for fields in (START_FIELDS, MODEL_FIELDS, COMPUTE_FIELDS):
            cast("QGridLayout", self._forms[fields].layout()).setColumnMinimumWidth(0, LABEL_WIDTH_PX)
        column.addStretch(1)
        return ScrollColumn(page, self.tr("More settings"))

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
        before = getattr(self._edited, part)
        changed = {name: getattr(value, name) for name in fields if getattr(value, name) != getattr(before, name)}
        for field, choice in tuple(changed.items()):
            changed |= self._with_linked(field, choice)
        self.edit(replace(self._edited, **{part: replace(getattr(self._edited, part), **changed)}))

    def _with_linked(self, field: str, choice: object) -> dict[str, object]:
        """What choosing ``choice`` for ``field`` sets: K and V both while they are linked."""
        names = LINKED if field in LINKED and self._link.isChecked() else (field,)
        return dict.fromkeys(names, choice)

    def _on_link_toggled(self) -> None:
        self.set_theme(self._theme)
        self._refresh()
        self.link_toggled.emit()

    def _show_edited(self, settings: EngineSettings) -> None:
        self._edited = settings
        if settings.context.type_k != settings.context.type_v:
            self._link.setChecked(False)
        self._length.set_value(settings.context.n_ctx)
        for fields, form in self._forms.items():
            form.set_value(settings.model if fields in (MODEL_FIELDS, OFFLOAD_FIELDS) else settings.context)
        self._refresh()

    def _refresh(self) -> None:
        problems = self._problems(self._edited.context)
        for fields, form in self._forms.items():
            if fields not in (MODEL_FIELDS, OFFLOAD_FIELDS):
                form.set_problems(problems)
        self._close_impossible_choices(problems)
        self._describe_offload()
        self._forms[START_FIELDS].set_field_visible("initial_ctx", self._edited.context.allocation == "grow")
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
                chosen = self._with_linked(field, choice)
                problems = self._problems(replace(context, **chosen))  # type: ignore[arg-type]
                new = [reason for name, reason in problems.items() if name not in now or name in chosen]
                form.set_choice_problem(field, choice, new[0] if new else "")

    def _describe_offload(self) -> None:
        form = self._forms[OFFLOAD_FIELDS]
        offloads = self._has_gpu or bool(self._edited.model.rpc_servers)
        form.setVisible(offloads)
        reason = "" if offloads else self.tr("No GPU that this llama.cpp can use, and no network worker is set")
        self._forms[PLACE_FIELDS].set_disabled_reason("offload_kqv", reason)
        has_experts = self._model is None or self._model.expert_count > 0
        experts_reason = reason if has_experts else self.tr("This model has no experts")
        self._forms[MODEL_FIELDS].set_disabled_reason("n_cpu_moe", experts_reason)
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
