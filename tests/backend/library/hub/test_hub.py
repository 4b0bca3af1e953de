"""The hub's answers, good and bad, through huggingface_hub's real session against a local server."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from kvdesk.backend.gguf.model_file import ModelFile
from kvdesk.backend.library.hub import remote_header
from kvdesk.backend.library.hub.hub import Hub
from kvdesk.backend.library.hub.remote_header import fetch_headers
from kvdesk.errors import HubError, ModelFileError
from tests.backend.library.hub.conftest import REPO
from tests.fakes.fake_hub import REVISION, FakeHub, FakeRepository, Fault, status, web_page, without_ranges

TOKEN = "hf_thisIsNobodysToken"


def test_search_asks_for_gguf_and_tells_what_is_found(fake: FakeHub, hub: Hub) -> None:
    [found] = hub.search("TINY", sort="last_modified", limit=7)
    assert (found.repo_id, found.downloads, found.likes) == (REPO, 1234, 5)
    assert (found.license, found.updated, found.is_gated) == ("apache-2.0", "2026-10-01", False)
    [asked] = fake.requests
    assert asked.query == {
        "search": ["TINY"], "filter": ["gguf"], "sort": ["lastModified"], "limit": ["7"], "full": ["true"],
    }  # fmt: skip
    assert hub.search("nothing like it") == ()


def test_a_repository_has_files_with_sizes_and_checksums(fake: FakeHub, hub: Hub, tiny_bytes: bytes) -> None:
    repository = hub.repository(REPO)
    assert [model.quantization for model in repository.models] == ["Q4_K_M", "Q8_0"]
    file = repository.models[0].files[0]
    assert (file.size_bytes, file.revision, len(file.sha256)) == (len(tiny_bytes), REVISION, 64)


@pytest.mark.parametrize(
    ("code", "headers", "sentence", "is_temporary"),
    [
        (401, {"X_Error_Code": "RepoNotFound"}, "does not exist, or is private: then sign in", False),
        (403, {}, "does not let you read", False),
        (403, {"X_Error_Code": "GatedRepo"}, "is gated: accept its terms", False),
        (404, {}, "The hub has no maker/tiny-GGUF", False),
        (429, {"Retry_After": "60"}, "asks to wait", True),
        (500, {}, "out of order", True),
        (503, {}, "out of order", True),
        (418, {}, "refuses the request", False),
    ],
)
def test_every_refusal_is_a_sentence(
    fake: FakeHub, hub: Hub, code: int, headers: dict[str, str], sentence: str, is_temporary: bool
) -> None:
    fake.fault("/api/models", status(code, **headers))
    with pytest.raises(HubError, match=sentence) as caught:
        hub.repository(REPO)
    assert (caught.value.status, caught.value.is_temporary) == (code, is_temporary)
    assert "http" not in str(caught.value)


def test_a_sign_in_page_is_told_from_an_answer(fake: FakeHub, hub: Hub) -> None:
    fake.fault("/api/models", web_page)
    with pytest.raises(HubError, match="a sign-in page"):
        hub.search("tiny")


def test_no_network_is_said_calmly() -> None:
    with FakeHub() as gone:
        endpoint = gone.endpoint
    with pytest.raises(HubError, match="Everything on this disk works"):
        Hub(endpoint).search("tiny")


def answering(body: bytes) -> Fault:
    def send(handler: Any) -> bool:
        handler.reply(200, body)
        return True

    return send


@pytest.mark.parametrize(
    "body", [b"[1, 2]", b'[{"id": "../../x"}]', b"null", b'[{"id": 5}]', b'[{"id": "o/r", "siblings": 3}]']
)
def test_answers_that_make_no_sense_find_nothing(fake: FakeHub, hub: Hub, body: bytes) -> None:
    fake.fault("/api/models", answering(body))
    assert hub.search("x") == ()


def test_an_endless_answer_is_not_read_to_its_end(fake: FakeHub, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kvdesk.backend.library.hub.hub.MAX_ANSWER_BYTES", 1000)

    fake.fault("/api/models", answering(json.dumps(["x" * 5000]).encode()))
    with pytest.raises(HubError, match="too long"):
        hub.search("x")


def test_texts_of_strangers_are_cut_to_one_plain_line(fake: FakeHub, hub: Hub) -> None:
    fake.repositories[REPO].tags = ("license:\x1b[31m<b>" + "x" * 1_000_000,)
    [found] = hub.search("tiny")
    assert len(found.license) <= 60
    assert "\x1b" not in found.license


def test_the_token_goes_to_the_hub_alone_and_into_no_text(
    fake: FakeHub, hub: Hub, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    caplog.set_level(logging.DEBUG)
    fake.repositories[REPO].gated = True
    fetch_headers(hub, hub.repository(REPO).models[0], tmp_path)
    carriers = {asked.path.split("/")[1] for asked in fake.requests if TOKEN in str(asked.headers)}
    assert carriers == {"api", "maker"}  # and not the host that the hub sends us on to
    fake.fault("/api/models", status(403))
    with pytest.raises(HubError) as caught:
        hub.repository(REPO)
    assert TOKEN not in caplog.text + str(caught.value) + repr(caught.value.__cause__)


def test_a_gated_repository_without_a_token_says_what_to_do(fake: FakeHub, hub: Hub, tmp_path: Path) -> None:
    fake.repositories[REPO].gated = True
    repository = hub.repository(REPO)
    assert repository.is_gated
    with pytest.raises(HubError, match=r"gated: accept its terms .* sign in with your own token"):
        fetch_headers(hub, repository.models[0], tmp_path)


def test_offline_mode_sends_nothing(fake: FakeHub, home: Path) -> None:
    """In a process of its own: huggingface_hub reads the variable when it is imported."""
    code = (
        "from kvdesk.backend.library.hub.hub import Hub\nfrom kvdesk.errors import HubError\n"
        f"try: Hub({fake.endpoint!r}).search('tiny')\nexcept HubError as error: print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True,
        env={"HF_HUB_OFFLINE": "1", "PATH": "", "HOME": str(home), "KVDESK_HOME": str(home), "PYTHONPATH": str(Path.cwd())},
    )  # fmt: skip
    assert "Offline mode is on (HF_HUB_OFFLINE)" in done.stdout
    assert fake.requests == []


def test_a_proxy_is_used(fake: FakeHub, home: Path) -> None:
    """The fake hub stands for the proxy: it is asked for an address that does not exist."""
    code = (
        "from kvdesk.backend.library.hub.hub import Hub\n"
        "print([one.repo_id for one in Hub('http://hub.invalid').search('tiny')])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True,
        env={"HTTP_PROXY": fake.endpoint, "PATH": "", "HOME": str(home), "KVDESK_HOME": str(home), "PYTHONPATH": str(Path.cwd())},
    )  # fmt: skip
    assert REPO in done.stdout


# --- headers -------------------------------------------------------------------------------------------------------


def test_the_header_alone_is_fetched(fake: FakeHub, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = fake.repositories[REPO].files["tiny-Q8_0.gguf"]
    fake.repositories[REPO].files["tiny-Q8_0.gguf"] = content + bytes(10_000_000)
    monkeypatch.setattr(remote_header, "FIRST_BYTES", 4096)
    model = fetch_headers(hub, hub.repository(REPO).models[1], tmp_path)
    assert isinstance(model, ModelFile)
    assert (model.architecture, model.n_ctx_train, model.is_complete) == ("llama", 131_072, False)
    ranges = [asked.headers["Range"] for asked in fake.requests if "/content/" in asked.path]
    assert ranges[:3] == ["bytes=0-4095", "bytes=4096-8191", "bytes=8192-16383"]
    assert fake.sent_bytes < 1_000_000


def test_a_hub_without_ranges_gives_the_same_header(
    fake: FakeHub, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_header, "FIRST_BYTES", 4096)
    fake.fault("/content/", *[without_ranges] * 20)
    model = fetch_headers(hub, hub.repository(REPO).models[0], tmp_path)
    assert model.n_ctx_train == 131_072


def test_what_is_no_gguf_is_refused_after_one_request(fake: FakeHub, hub: Hub, tmp_path: Path) -> None:
    fake.repositories["o/r"] = FakeRepository({"m.gguf": b"<html>" + bytes(5_000_000)})
    with pytest.raises(ModelFileError, match="not a GGUF file"):
        fetch_headers(hub, hub.repository("o/r").models[0], tmp_path)
    assert len(fake.paths("/content/")) == 1


def test_a_header_without_end_is_given_up(
    fake: FakeHub, hub: Hub, tmp_path: Path, tiny_bytes: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_header, "MAX_HEADER_BYTES", 8192)
    monkeypatch.setattr(remote_header, "FIRST_BYTES", 1024)
    fake.repositories["o/r"] = FakeRepository({"m.gguf": tiny_bytes[:64] + b"\xff" * 2 + tiny_bytes[66:]})
    with pytest.raises((HubError, ModelFileError)):
        fetch_headers(hub, hub.repository("o/r").models[0], tmp_path)
    assert len(fake.paths("/content/")) <= 4
