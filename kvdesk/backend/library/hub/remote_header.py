"""The header of a model on the hub, alone: fetched by range requests that grow until it is whole. Blocking, any thread.

A header is a few MB at the front of a file of many GB, and all that a plan needs.
"""

from __future__ import annotations

from pathlib import Path

from kvdesk.backend.gguf.header import MAX_HEADER_BYTES, HeaderCutShort, read_header
from kvdesk.backend.gguf.model_file import ModelFile, read_model_file
from kvdesk.backend.library.hub.hub import Hub
from kvdesk.backend.library.hub.repository import RemoteFile, RemoteModel
from kvdesk.errors import HubError
from kvdesk.sizes import MIB

FIRST_BYTES = MIB


def fetch_headers(hub: Hub, model: RemoteModel, folder: Path) -> ModelFile:
    """The model as its header describes it; of a split one the headers of all parts are fetched.

    ``folder`` takes the headers as files of the model's names and is the caller's to remove; a plan of the model needs
    them. Raises HubError, and ModelFileError for what is no GGUF model.
    """
    for file in model.files:
        _fetch(hub, file, folder / Path(file.name).name)
    return read_model_file(folder / Path(model.files[0].name).name)


def _fetch(hub: Hub, file: RemoteFile, path: Path) -> None:
    """Have the header of ``file`` in ``path``: each request doubles what is there."""
    path.write_bytes(b"")
    have = 0
    while True:
        wanted = min(max(FIRST_BYTES, 2 * have), MAX_HEADER_BYTES, file.size_bytes)
        if wanted <= have:
            raise HubError(f"{path.name} at the hub is no GGUF model whose header can be read.")
        _append(hub, file, path, have, wanted)
        if path.stat().st_size <= have:
            raise HubError(f"The hub sent nothing of {path.name}.", is_temporary=True)
        have = path.stat().st_size
        try:
            read_header(path)
        except HeaderCutShort:
            continue
        return


def _append(hub: Hub, file: RemoteFile, path: Path, start: int, end: int) -> None:
    """Add the bytes from ``start`` to ``end``; a hub that does not know ranges is read from the front."""
    with hub.open(file, start, end) as response, path.open("r+b") as out:
        skipped = start if response.status_code != 206 else 0
        left = end - start
        out.seek(start)
        for chunk in response.iter_raw():
            piece = chunk[skipped:][:left]
            skipped = max(0, skipped - len(chunk))
            out.write(piece)
            left -= len(piece)
            if left <= 0:
                return
