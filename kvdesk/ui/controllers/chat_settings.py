"""Sampling, system prompt and overflow of the open conversation, between its panel and what is kept. UI thread."""

from __future__ import annotations

from PySide6.QtCore import QObject, Signal

from kvdesk.backend.protocol import messages as m
from kvdesk.backend.sampling import SamplingSettings
from kvdesk.backend.session.session_event import Change
from kvdesk.ui.chat.sampling_panel import SamplingPanel
from kvdesk.ui.controllers.open_conversation import OpenConversation


class ChatSettingsController(QObject):
    """Shows the settings of whatever conversation is opened, and keeps what is changed in it."""

    sampling_chosen = Signal(SamplingSettings)
    """Changed by the user for the open conversation."""

    def __init__(self, opened: OpenConversation, panel: SamplingPanel, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._opened = opened
        self._panel = panel
        opened.shown.connect(self.show)
        panel.changed.connect(self.set_sampling)
        panel.system_prompt_changed.connect(lambda text: opened.change(system_prompt=text))
        panel.overflow_changed.connect(self.set_overflow)
        self.show()

    def show(self) -> None:
        """Show the open conversation's settings."""
        chosen = self._opened.conversation
        self._panel.show_conversation(chosen.sampling, chosen.system_prompt, chosen.overflow)

    def on_change(self, change: Change) -> None:
        """Another model has other defaults: a conversation that nothing was done in takes them."""
        if isinstance(change.event, m.Loaded) and self._opened.refresh_new():
            self.show()

    def set_sampling(self, sampling: SamplingSettings) -> None:
        """How replies are sampled from now on."""
        self._opened.change(sampling=sampling)
        self.sampling_chosen.emit(sampling)

    def set_overflow(self, policy: str) -> None:
        """What happens at the context's end."""
        self._opened.change(overflow=policy)
        self.show()
