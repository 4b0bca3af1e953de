"""A model hub on 127.0.0.1 that speaks the Hugging Face hub's protocol as far as kvdesk asks for it, and fails as told.

Search, a repository's files with sizes and checksums, and files behind a redirect to another host, with ranges. ``fault``
makes the next request for a path go wrong; ``requests`` has what was asked, headers included.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import socket
import threading
from collections import defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs, unquote, urlsplit

REVISION = "a" * 40
PIECE_BYTES = 64 * 1024


@dataclass
class Asked:
    """One request."""

    path: str
    query: dict[str, list[str]]
    headers: dict[str, str]


@dataclass
class FakeRepository:
    """Content of a repository: file name -> bytes. ``sizes`` and ``checksums`` are lies about some of them."""

    files: dict[str, bytes]
    tags: tuple[str, ...] = ("gguf", "license:apache-2.0")
    gated: bool = False
    sizes: dict[str, int] = field(default_factory=dict)
    checksums: dict[str, str] = field(default_factory=dict)
    small: frozenset[str] = frozenset()


Fault = Callable[["_Handler"], bool]
"""Answers a request itself and returns True, or changes how it is answered and returns False."""


class FakeHub:
    """Runs while its ``with`` block does."""

    def __init__(self) -> None:
        self.repositories: dict[str, FakeRepository] = {}
        self.requests: list[Asked] = []
        self.faults: defaultdict[str, deque[Fault]] = defaultdict(deque)
        self.sent_bytes = 0
        self._held_at: int | None = None
        self._moved = threading.Condition()
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.hub = self  # type: ignore[attr-defined]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.hold(None)
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def port(self) -> int:
        return self._server.server_address[1]

    @property
    def endpoint(self) -> str:
        """What HF_ENDPOINT is to be."""
        return f"http://127.0.0.1:{self.port}"

    def fault(self, part_of_path: str, *faults: Fault) -> None:
        """The next requests whose path holds ``part_of_path`` meet these, one each."""
        self.faults[part_of_path].extend(faults)

    def paths(self, part: str = "") -> list[str]:
        """The paths that were asked for and hold ``part``."""
        return [asked.path for asked in self.requests if part in asked.path]

    def wait_for_requests(self, part_of_path: str, count: int) -> None:
        """Wait until ``count`` requests for such paths have come."""
        with self._moved:
            assert self._moved.wait_for(lambda: len(self.paths(part_of_path)) >= count, timeout=60)

    def hold(self, at: int | None) -> None:
        """From now on nothing of a file beyond its byte ``at`` flows; None lets all flow."""
        with self._moved:
            self._held_at = at
            self._moved.notify_all()

    def wait_to_send(self, at: int) -> None:
        """Wait until the piece at ``at`` may flow."""
        with self._moved:
            self._moved.wait_for(lambda: self._held_at is None or at < self._held_at, timeout=60)

    def asked(self, request: Asked) -> None:
        """A request came."""
        with self._moved:
            self.requests.append(request)
            self._moved.notify_all()

    def sent(self, count: int) -> None:
        """So many bytes of a file went out."""
        with self._moved:
            self.sent_bytes += count


# --- faults --------------------------------------------------------------------------------------------------------


def status(code: int, **headers: str) -> Fault:
    """Answer with that status, and ``headers`` with a dash for each underscore."""

    def answer(handler: _Handler) -> bool:
        handler.reply(code, b'{"error": "made up"}', {name.replace("_", "-"): text for name, text in headers.items()})
        return True

    return answer


def web_page(handler: _Handler) -> bool:
    """Answer as a network that wants a sign-in does."""
    handler.reply(200, b"<!DOCTYPE html><html>Sign in to the network</html>", {"Content-Type": "text/html"})
    return True


def break_off(after_bytes: int) -> Fault:
    """Close the connection after so many bytes of the file."""

    def cut(handler: _Handler) -> bool:
        handler.cut_after = after_bytes
        return False

    return cut


def without_ranges(handler: _Handler) -> bool:
    """Send the whole file whatever range was asked for."""
    handler.knows_ranges = False
    return False


def another_range(handler: _Handler) -> bool:
    """Send from the beginning, and say so, whatever range was asked for."""
    handler.shift = -1
    return False


def garbled(handler: _Handler) -> bool:
    """Send other bytes than the file's, as many."""
    handler.garbles = True
    return False


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._open: set[socket.socket] = set()

    def process_request(self, request: Any, client_address: Any) -> None:
        self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._open.discard(request)
        super().shutdown_request(request)

    def server_close(self) -> None:
        """Ends the connections that clients keep open, and with them their threads."""
        super().server_close()
        for connection in tuple(self._open):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, *arguments: Any) -> None:
        """Quiet: that the other side leaves is what is tested."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def setup(self) -> None:
        super().setup()
        self.hub: FakeHub = self.server.hub  # type: ignore[attr-defined]

    def log_message(self, *arguments: Any) -> None:
        """Quiet."""

    def do_GET(self) -> None:
        self.cut_after: int | None = None
        self.knows_ranges, self.shift, self.garbles = True, 0, False
        link = urlsplit(self.path)
        path = unquote(link.path)
        self.hub.asked(Asked(path, parse_qs(link.query), dict(self.headers)))
        for part, faults in list(self.hub.faults.items()):
            if part in path and faults and faults.popleft()(self):
                return
        if path == "/api/models":
            self._search(parse_qs(link.query).get("search", [""])[0])
        elif path.startswith("/api/models/"):
            self._describe(path.removeprefix("/api/models/").split("/revision/")[0])
        elif path.startswith("/content/"):
            self._content(*path.removeprefix("/content/").split("//", 1))
        elif "/resolve/" in path:
            repo_id, _, rest = path.strip("/").partition("/resolve/")
            name = rest.partition("/")[2]
            if self._repository(repo_id, name) is not None:
                host = f"localhost:{self.hub.port}"  # another host: the token must not go there
                self.reply(
                    302, b"", {"Location": f"http://{host}/content/{repo_id}//{name}?signature=secret-of-the-link"}
                )
        else:
            self.reply(404, b"")

    def reply(self, code: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(code)
        for name, text in ({"Content-Type": "application/json"} | (headers or {})).items():
            self.send_header(name, text)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _repository(self, repo_id: str, name: str | None = None) -> FakeRepository | None:
        found = self.hub.repositories.get(repo_id)
        if found is None:
            self.reply(401, b'{"error": "Invalid username or password."}', {"X-Error-Code": "RepoNotFound"})
        elif found.gated and name and "Authorization" not in self.headers:
            self.reply(401, b"{}", {"X-Error-Code": "GatedRepo"})
            return None
        elif name is not None and name not in found.files:
            self.reply(404, b"{}", {"X-Error-Code": "EntryNotFound"})
            return None
        return found

    def _search(self, words: str) -> None:
        rows = [self._row(name, blobs=False) for name in self.hub.repositories if words.lower() in name.lower()]
        self.reply(200, json.dumps(rows).encode())

    def _describe(self, repo_id: str) -> None:
        if self._repository(repo_id) is not None:
            self.reply(200, json.dumps(self._row(repo_id, blobs=True)).encode())

    def _row(self, repo_id: str, *, blobs: bool) -> dict[str, Any]:
        repository = self.hub.repositories[repo_id]
        siblings: list[dict[str, Any]] = [{"rfilename": name} for name in repository.files]
        for sibling in siblings if blobs else ():
            name = sibling["rfilename"]
            content = repository.files[name]
            sibling["size"] = repository.sizes.get(name, len(content))
            sibling["blobId"] = hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()
            if name not in repository.small:
                digest = repository.checksums.get(name) or hashlib.sha256(content).hexdigest()
                sibling["lfs"] = {"sha256": digest, "size": sibling["size"], "pointerSize": 135}
        return {
            "id": repo_id, "modelId": repo_id, "sha": REVISION, "downloads": 1234, "likes": 5, "private": False,
            "gated": "auto" if repository.gated else False, "tags": list(repository.tags),
            "lastModified": "2026-10-01T12:00:00.000Z", "siblings": siblings,
        }  # fmt: skip

    def _content(self, repo_id: str, name: str) -> None:
        content = self.hub.repositories[repo_id].files[name]
        start, end = 0, len(content)
        asked = self.headers.get("Range", "")
        if asked.startswith("bytes=") and self.knows_ranges:
            first, _, last = asked.removeprefix("bytes=").partition("-")
            start, end = int(first) + self.shift, min(end, int(last) + 1 if last else end)
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{len(content)}")
        else:
            self.send_response(200)
        self.send_header("Content-Type", "application/octet-stream")
        self.send_header("Content-Length", str(end - start))
        self.end_headers()
        for at in range(start, end, PIECE_BYTES):
            piece = content[at : min(at + PIECE_BYTES, end)]
            if self.cut_after is not None and at - start + len(piece) > self.cut_after:
                self.wfile.write(piece[: max(0, self.cut_after - (at - start))])
                self.close_connection = True
                return
            self.hub.wait_to_send(at)
            try:
                self.wfile.write(bytes(len(piece)) if self.garbles and at else piece)
            except OSError:  # the other side left
                self.close_connection = True
                return
            self.hub.sent(len(piece))
