"""The badge of model lists, by real dry runs, against lines that are set here."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from kvdesk.backend.gguf.model_file import read_model_file
from kvdesk.backend.planning.calibration import Calibration
from kvdesk.backend.planning.fit import DOES_NOT_FIT, FITS, FITS_UP_TO, UNKNOWN, Fit, Offer, best_offer, fit_of
from kvdesk.backend.planning.pricer import Pricer
from kvdesk.backend.settings import EngineSettings
from kvdesk.backend.system.samples import DomainReading
from kvdesk.sizes import GIB, MIB
from tests.tiny_models import write_tiny

pytestmark = pytest.mark.shares("processes")
"""The helper process starts with the first question."""


@pytest.fixture(scope="module")
def pricer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pricer]:
    folder = tmp_path_factory.mktemp("fit")
    model = read_model_file(write_tiny("llama", folder, n_ctx_train=131_072))
    with Pricer(model, Calibration(folder / "none.json"), margin_bytes=0) as pricer:
        yield pricer


def fit(pricer: Pricer, free_bytes: int | None) -> Fit:
    reading = DomainReading("RAM", "ram", free_bytes, free_bytes, 0, 0, 0)
    return fit_of(pricer, EngineSettings(), lambda devices: (reading,))


def test_with_room_it_fits_with_its_whole_context(pricer: Pricer) -> None:
    found = fit(pricer, 64 * GIB)
    assert (found.kind, found.max_n_ctx, found.n_ctx) == ("fits", 131_072, 8192)
    assert found.sentence == "Fits with all of its 128k tokens"
    [ram] = found.domains
    assert ram.own_total_bytes is not None
    assert found.total_bytes == ram.total_bytes < ram.own_total_bytes


def test_with_less_the_longest_context_is_named(pricer: Pricer) -> None:
    whole = fit(pricer, 64 * GIB).domains[0]
    assert whole.own_total_bytes is not None
    found = fit(pricer, (whole.total_bytes + whole.own_total_bytes) // 2)
    assert found.kind == "fits-up-to"
    assert 8192 < (found.max_n_ctx or 0) < 131_072
    assert found.sentence == f"Fits up to {(found.max_n_ctx or 0) // 1024}k tokens"


def test_without_room_it_says_how_much_is_lacking(pricer: Pricer) -> None:
    found = fit(pricer, 10 * MIB)
    assert (found.kind, found.max_n_ctx) == ("does-not-fit", None)
    assert found.sentence.startswith("Will be killed: ")
    assert (found.room_bytes or 0) < 0


def test_unknown_memory_is_no_promise(pricer: Pricer) -> None:
    assert fit(pricer, None).kind == "unknown"


@pytest.mark.logs("dry run of .* failed")
def test_a_model_that_cannot_be_planned_says_why(tmp_path: Path) -> None:
    whole = write_tiny("llama", tmp_path)
    raw = whole.read_bytes()
    model = read_model_file(whole)
    whole.write_bytes(raw[: raw.index(b"blk.0.")])  # it changed since its header was read
    with Pricer(model, Calibration(tmp_path / "none.json")) as pricer:
        found = fit_of(pricer, EngineSettings(), lambda devices: ())
    assert found.kind == "unknown"
    assert found.sentence


# --- the best of several -------------------------------------------------------------------------------------------


def offer(quantization: str, size: int, kind: str, max_n_ctx: int | None = None) -> Offer:
    return Offer(quantization, size, Fit(kind, "", max_n_ctx=max_n_ctx))


@pytest.mark.parametrize(
    ("offers", "best"),
    [
        ([("Q4_K_M", 4, FITS, 131_072), ("Q8_0", 8, FITS_UP_TO, 40_960), ("F16", 16, FITS_UP_TO, 32_768)], 1),
        ([("Q4_K_M", 4, FITS_UP_TO, 20_480), ("Q8_0", 8, FITS_UP_TO, 4096)], 0),
        ([("Q4_K_M", 4, FITS, 2048), ("Q8_0", 8, DOES_NOT_FIT, None)], 0),
        ([("F16", 4, FITS, 32_768)], 0),
        ([("Q4_K_M", 4, DOES_NOT_FIT, None), ("Q8_0", 8, UNKNOWN, None)], None),
        ([], None),
    ],
)
def test_the_best_for_this_machine(offers: list[tuple[str, int, str, int | None]], best: int | None) -> None:
    found = best_offer([offer(*values) for values in offers])
    assert (found and found[0]) == best


def test_it_is_said_why_it_is_the_best() -> None:
    found = best_offer([offer("Q4_K_M", 4, FITS_UP_TO, 40_960)])
    assert found is not None
    assert found[1] == "The best for this machine: the most exact weights that fit with 32k tokens."
