"""The model library behind the window: scans this machine, asks the hub, prices both, downloads. Two threads of its own.

Methods return at once; answers come to ``on_event`` from those threads. The newest question of each kind wins: a scan ends
the scan before it, a search the search before it. No Qt. Nothing is sent unless ``search``, ``look_up`` or a download asks.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from queue import SimpleQueue
from threading import Event, Lock, Thread

from kvdesk import paths
from kvdesk.backend.library.badges import Badges
from kvdesk.backend.library.first_models import read_first_models, suiting
from kvdesk.backend.library.hub.downloads import Downloads
from kvdesk.backend.library.hub.hub import Hub
from kvdesk.backend.library.hub.reference import chosen_model, read_reference
from kvdesk.backend.library.hub.repository import RemoteModel
from kvdesk.backend.library.library_event import (
    BestFound,
    EntriesRead,
    FirstModelsRead,
    Found,
    HubFailed,
    LibraryEvent,
    Opened,
    Priced,
    RemotePriced,
    ScanEnded,
    TooLarge,
)
from kvdesk.backend.library.models import ModelList, ModelListEntry, has_starter
from kvdesk.backend.library.own_models import delete_model
from kvdesk.backend.library.places import Place
from kvdesk.backend.planning.fit import DOES_NOT_FIT, Fit, Offer, best_offer
from kvdesk.errors import HubError, KvdeskError

log = logging.getLogger(__name__)

OTHER_LINK = (
    "Only links to the Hugging Face hub are downloaded here. Download the file with your browser, then open it: File, "
    "Open model."
)
_TELL_EVERY_S = 0.1
_END_S = 5.0
_LOOK_EVERY_S = 0.2

IsWanted = Callable[[], bool]
"""Whether a job's answer is still wanted."""


class Library:
    """``places`` and ``badges`` are asked for anew by each job: the person may have changed folders or settings."""

    def __init__(
        self,
        places: Callable[[], Sequence[Place]],
        badges: Callable[[], Badges],
        on_event: Callable[[LibraryEvent], None],
        hub: Hub | None = None,
    ) -> None:
        self._places = places
        self._badges = badges
        self._on_event = on_event
        self._hub = hub or Hub()
        self._local = _NewestFirst("library")
        self._remote = _NewestFirst("hub")
        self._may_price = Event()
        self._may_price.set()
        self._fits: dict[tuple[str, str], Fit] = {}
        self.downloads = Downloads(self._hub, paths.models_dir(), on_event)

    def scan(self, *, anew: bool = False) -> None:
        """List the models of this machine, then price them; ``anew`` reads and prices again what is known."""
        self._local.do(lambda is_wanted: self._scan(anew, is_wanted))

    def search(self, words: str, sort: str = "downloads") -> None:
        """Ask the hub: for a repository where ``words`` name one (a link, owner/name), else for all whose names match."""
        if read_reference(words):
            self.look_up(words)
        elif "://" in words:
            self._on_event(HubFailed(OTHER_LINK))
        else:
            self._remote.do(lambda is_wanted: self._search(words, sort, is_wanted))

    def look_up(self, reference: str) -> None:
        """Ask the hub for the repository that ``reference`` names, then fetch its models' headers and price them."""
        self._remote.do(lambda is_wanted: self._look_up(reference, is_wanted))

    def hold_pricing(self, held: bool) -> None:
        """Let the badges of this machine's models wait, while the processor is wanted for something better, or go on."""
        if held:
            self._may_price.clear()
        else:
            self._may_price.set()

    def offer_first(self) -> None:
        """Tell what a newcomer may choose from; asks nothing of the network."""
        self._local.do(lambda _: self._offer_first())

    def fetch(self, model: RemoteModel) -> None:
        """Download ``model``, unless its header shows that it does not fit: then ``TooLarge`` is told instead."""
        self._remote.do(lambda is_wanted: self._fetch(model, is_wanted))

    def delete(self, path: Path) -> int:
        """Delete a model of kvdesk's own folder; blocking. Returns the bytes freed. Raises ModelFileError."""
        return delete_model(path)

    def close(self) -> None:
        """End jobs and downloads. What waits for the network is left behind: it ends with the process."""
        self.downloads.close()
        self._remote.close(0.0)
        self._local.close(_END_S)

    # --- jobs ----------------------------------------------------------------------------------------------------

    def _scan(self, anew: bool, is_wanted: IsWanted) -> None:
        models = ModelList()
        if anew:
            models.forget()
            self._fits.clear()
        entries: list[ModelListEntry] = []
        batch: list[ModelListEntry] = []
        told, is_first = time.monotonic(), True
        for entry in models.entries(self._places()):
            if not is_wanted():
                return
            entries.append(entry)
            batch.append(entry)
            if time.monotonic() - told > _TELL_EVERY_S:
                self._on_event(EntriesRead(tuple(batch), is_first))
                batch, told, is_first = [], time.monotonic(), False
        if batch or is_first:
            self._on_event(EntriesRead(tuple(batch), is_first))
        self._on_event(ScanEnded(len(entries)))
        badges = self._badges()
        for entry in entries:
            while not self._may_price.wait(_LOOK_EVERY_S) and is_wanted():
                pass
            if not is_wanted():
                return
            if entry.n_layer:
                self._on_event(Priced(entry.path, self._fit(badges, entry)))

    def _fit(self, badges: Badges, entry: ModelListEntry) -> Fit:
        key = (entry.path, entry.fingerprint)
        if key not in self._fits:
            self._fits[key] = badges.of_file(Path(entry.path))
        return self._fits[key]

    def _search(self, words: str, sort: str, is_wanted: IsWanted) -> None:
        try:
            found = self._hub.search(words, sort=sort)
        except HubError as error:
            self._tell(HubFailed(str(error)), is_wanted)
        else:
            self._tell(Found(words, found), is_wanted)

    def _look_up(self, text: str, is_wanted: IsWanted) -> None:
        reference = read_reference(text)
        if reference is None:
            return
        try:
            repository = self._hub.repository(reference.repo_id, reference.revision)
            chosen = chosen_model(repository, reference)
        except HubError as error:
            self._tell(HubFailed(str(error)), is_wanted)
            return
        self._tell(Opened(repository, chosen.name if chosen else ""), is_wanted)
        self._price_remote(repository.repo_id, repository.models, is_wanted)

    def _offer_first(self) -> None:
        line_bytes = self._badges().ram_line_bytes()
        models = suiting(read_first_models(paths.resource_dir()), line_bytes)
        self._on_event(FirstModelsRead(models, line_bytes, has_starter()))

    def _fetch(self, model: RemoteModel, is_wanted: IsWanted) -> None:
        fit = self._badges().of_remote(self._hub, model)
        if fit.kind == DOES_NOT_FIT:
            self._tell(TooLarge(model, fit.sentence), is_wanted)
        elif is_wanted():
            self.downloads.start(model)

    def _price_remote(self, repo_id: str, models: Sequence[RemoteModel], is_wanted: IsWanted) -> None:
        badges = self._badges()
        offers: list[Offer] = []
        for model in models:
            if not is_wanted():
                return
            fit = badges.of_remote(self._hub, model)
            offers.append(Offer(model.quantization, model.size_bytes, fit))
            self._tell(RemotePriced(repo_id, model.name, fit), is_wanted)
        best = best_offer(offers)
        self._tell(BestFound(repo_id, models[best[0]].name if best else "", best[1] if best else ""), is_wanted)

    def _tell(self, event: LibraryEvent, is_wanted: IsWanted) -> None:
        if is_wanted():
            self._on_event(event)


class _NewestFirst:
    """A thread for jobs of one kind, of which only the newest matters: a new one makes those before unwanted."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._jobs: SimpleQueue[tuple[int, Callable[[IsWanted], None]] | None] = SimpleQueue()
        self._guard = Lock()
        self._newest = 0
        self._thread: Thread | None = None

    def do(self, job: Callable[[IsWanted], None]) -> None:
        with self._guard:
            self._newest += 1
            self._jobs.put((self._newest, job))
            if self._thread is None:
                self._thread = Thread(target=self._run, name=self._name, daemon=True)
                self._thread.start()

    def close(self, wait_s: float) -> None:
        with self._guard:
            self._newest += 1
            self._jobs.put(None)
            thread = self._thread
        if thread:
            thread.join(wait_s)

    def _run(self) -> None:
        while (item := self._jobs.get()) is not None:
            number, job = item
            if number != self._newest:
                continue
            try:
                job(lambda number=number: number == self._newest)
            except (KvdeskError, OSError):
                log.exception("the library could not finish what it was asked")
