"""Talks to the Hugging Face hub through huggingface_hub's session: search, a repository's files, bytes of a file.

Blocking, any thread. The session brings proxies, the system's certificates, HF_ENDPOINT, HF_HUB_OFFLINE and the person's
own token, which goes to the hub alone and into no log or sentence.
"""

from __future__ import annotations

import json
import os
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

from kvdesk.backend.library.hub.repository import REPOSITORY_NAME, RemoteFile, Repository
from kvdesk.errors import HubError
from kvdesk.shown_text import shown_line
from kvdesk.sizes import MIB

if TYPE_CHECKING:
    import httpx2

TIMEOUT_S = 20.0
"""Longest silence of the hub within a request, connecting included."""
MAX_ANSWER_BYTES = 20 * MIB
SORTS = ("downloads", "likes", "last_modified", "trending_score")
_ALL_IS_HERE = "Everything on this disk works without it."


class Hub:
    """One hub. ``endpoint`` is HF_ENDPOINT or else huggingface.co."""

    def __init__(self, endpoint: str | None = None) -> None:
        self._endpoint = (endpoint or os.environ.get("HF_ENDPOINT", "")).rstrip("/") or None

    def search(self, words: str, *, sort: str = "downloads", limit: int = 30) -> tuple[Repository, ...]:
        """Repositories with GGUF files whose name holds ``words``; ``sort`` is one of SORTS. Raises HubError."""
        camel = {"last_modified": "lastModified", "trending_score": "trendingScore"}.get(sort, sort)
        parameters = {"search": words, "filter": "gguf", "sort": camel, "limit": str(limit), "full": "true"}
        rows = self._json("/api/models", parameters, "The hub")
        found = [_repository(row) for row in cast("list[Any]", rows)] if isinstance(rows, list) else []
        return tuple(replace(one, files=()) for one in found if one is not None)[:limit]

    def repository(self, repo_id: str, revision: str = "") -> Repository:
        """The repository with its files, sizes and checksums, at ``revision`` or the newest. Raises HubError."""
        from urllib.parse import quote

        if not REPOSITORY_NAME.fullmatch(repo_id):
            raise HubError(f"{shown_line(repo_id, 100)} is no repository's name; it is owner/name.")
        at = f"/revision/{quote(revision, safe='')}" if revision else ""
        found = _repository(self._json(f"/api/models/{repo_id}{at}", {"blobs": "true"}, repo_id))
        if found is None:
            raise HubError(f"The hub's answer about {repo_id} cannot be read. Try again later.", is_temporary=True)
        return found

    @contextmanager
    def open(self, file: RemoteFile, start: int = 0, end: int | None = None) -> Generator[httpx2.Response]:
        """The response to a request for the bytes from ``start`` up to ``end`` (not included) of ``file``, to be read with
        ``iter_raw``. Where the hub does not know ranges the status is 200 and the bytes begin at 0. Raises HubError."""
        from huggingface_hub import hf_hub_url

        url = hf_hub_url(file.repo_id, file.name, revision=file.revision or None, endpoint=self._endpoint)
        last = "" if end is None else str(end - 1)
        ranges = {"Range": f"bytes={start}-{last}"} if start or end is not None else {}
        with self._stream(url, {}, ranges, file.repo_id) as response:
            yield response

    def _json(self, path: str, parameters: Mapping[str, str], subject: str) -> Any:
        from huggingface_hub.constants import ENDPOINT

        body = bytearray()
        with self._stream(f"{self._endpoint or ENDPOINT}{path}", parameters, {}, subject) as response:
            for chunk in response.iter_bytes():
                body += chunk
                if len(body) > MAX_ANSWER_BYTES:
                    raise HubError(f"The hub's answer about {subject} is too long to be one.")
        try:
            return json.loads(body)
        except (ValueError, RecursionError) as error:
            raise HubError(
                f"What answers at the hub's address sent no answer about {subject} but something else: a sign-in page of "
                "the network, or a proxy's error, perhaps.",
                is_temporary=True,
            ) from error

    @contextmanager
    def _stream(
        self, url: str, parameters: Mapping[str, str], headers: Mapping[str, str], subject: str
    ) -> Generator[httpx2.Response]:
        from huggingface_hub import get_session, hf_raise_for_status
        from huggingface_hub.utils import build_hf_headers  # pyright: ignore[reportUnknownVariableType]

        sent = build_hf_headers(library_name="kvdesk")
        sent |= {"Accept-Encoding": "identity", **headers}  # sizes and ranges count bytes of the file itself
        with (
            _errors_as_sentences(subject),
            get_session().stream("GET", url, params=dict(parameters), headers=sent, timeout=TIMEOUT_S) as response,
        ):
            hf_raise_for_status(response)
            yield response


@contextmanager
def _errors_as_sentences(subject: str) -> Generator[None]:
    """Whatever goes wrong with a request becomes a HubError without address, header or token in it."""
    import httpx2
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, OfflineModeIsEnabled

    try:
        yield
    except OfflineModeIsEnabled:
        raise HubError(f"Offline mode is on (HF_HUB_OFFLINE), so the hub is not asked. {_ALL_IS_HERE}") from None
    except HfHubHTTPError as error:
        status = error.response.status_code
        raise _refusal(status, subject, is_gated=isinstance(error, GatedRepoError)) from None
    except httpx2.TimeoutException:
        raise HubError(f"The hub does not answer. {_ALL_IS_HERE}", is_temporary=True) from None
    except httpx2.ProxyError:
        raise HubError("The proxy (HTTPS_PROXY) refuses or cannot be reached.", is_temporary=True) from None
    except httpx2.ConnectError as error:
        if "CERTIFICATE" in str(error).upper():
            raise HubError(
                "The hub's certificate is not trusted by this system. In a company's network the administrator knows "
                "which certificate to install."
            ) from None
        raise HubError(
            f"The hub cannot be reached: is this machine online? {_ALL_IS_HERE}", is_temporary=True
        ) from None
    except httpx2.HTTPError:
        raise HubError("The connection to the hub broke off.", is_temporary=True) from None
    except (httpx2.InvalidURL, httpx2.UnsupportedProtocol):
        raise HubError("The hub's address (HF_ENDPOINT) is none that can be asked.") from None


def _refusal(status: int, subject: str, *, is_gated: bool) -> HubError:
    sign_in = "sign in with your own token: `hf auth login`, or the variable HF_TOKEN"
    if is_gated:
        return HubError(f"{subject} is gated: accept its terms on its page at the hub, then {sign_in}.", status)
    if status == 401:
        return HubError(f"{subject} does not exist, or is private: then {sign_in}.", status)
    if status == 403:
        return HubError(f"The hub does not let you read {subject}; {sign_in}, if you may.", status)
    if status == 404:
        return HubError(f"The hub has no {subject}, or not this file of it.", status)
    if status == 429:
        return HubError(
            "The hub asks to wait: too many requests. Try again in a few minutes.", status, is_temporary=True
        )
    if status >= 500:
        return HubError(f"The hub is out of order ({status}). Try again later.", status, is_temporary=True)
    return HubError(f"The hub refuses the request ({status}).", status)


def _repository(row: Any) -> Repository | None:
    """A repository out of the hub's JSON; None for what is none."""
    from huggingface_hub import ModelInfo

    try:
        info = ModelInfo(**row)
        if not REPOSITORY_NAME.fullmatch(info.id):
            return None
        revision = str(info.sha or "")
        named = {tag.partition(":")[0]: tag.partition(":")[2] for tag in info.tags or () if ":" in tag}
        return Repository(
            repo_id=info.id,
            revision=revision,
            downloads=int(info.downloads or 0),
            likes=int(info.likes or 0),
            license=shown_line(str(named.get("license", "")), 60),
            updated=info.last_modified.date().isoformat() if info.last_modified else "",
            is_gated=bool(info.gated),
            is_private=bool(info.private),
            files=tuple(
                RemoteFile(
                    info.id,
                    revision,
                    str(sibling.rfilename),
                    int(sibling.size or 0),
                    str(sibling.lfs.sha256) if sibling.lfs else "",
                    str(sibling.blob_id or ""),
                )
                for sibling in info.siblings or ()
            ),
        )
    except (TypeError, ValueError, LookupError, AttributeError):
        return None
