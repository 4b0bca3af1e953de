"""dry_run.py: the helper process answers from headers alone, may die, and is let go."""

from __future__ import annotations

import dataclasses
import os
import shutil
import signal
import sys
from pathlib import Path

import gguf
import psutil
import pytest

from kvdesk.backend.gguf.model_file import read_model_file
from kvdesk.backend.planning.calibration import Calibration
from kvdesk.backend.planning.dry_run import DryRun, HelperDiedError
from kvdesk.backend.planning.pricer import NO_REPACKING, Pricer
from kvdesk.backend.protocol.facts import BufferKind
from kvdesk.backend.protocol.footprint import DRY_RUN, ESTIMATE, Footprint
from kvdesk.backend.settings import ContextSettings, EngineSettings, ModelSettings
from kvdesk.errors import PlanError, SettingsError
from tests.plan_reality import RealLoads, differences
from tests.tiny_models import write_sparse_header, write_tiny

PLAIN = EngineSettings(ModelSettings(use_extra_bufts=False), ContextSettings(n_ctx=1024))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def llama(folder: Path) -> Path:
    return write_tiny("llama", folder)


@pytest.fixture(scope="module")
def exact(llama: Path) -> Footprint:
    """The whole file's footprint."""
    with DryRun(read_model_file(llama)) as dry_run:
        return dry_run.ask(PLAIN)


def ask(path: Path, settings: EngineSettings = PLAIN) -> Footprint:
    with DryRun(read_model_file(path)) as dry_run:
        return dry_run.ask(settings)


def test_a_header_alone_gives_the_same_plan(llama: Path, exact: Footprint, tmp_path: Path) -> None:
    assert ask(write_sparse_header(llama, tmp_path / "sparse.gguf", full_size=True)) == exact
    assert ask(write_sparse_header(llama, tmp_path / "header.gguf")) == exact


def test_a_download_cut_short_gives_the_same_plan(llama: Path, exact: Footprint, tmp_path: Path) -> None:
    cut = tmp_path / "cut.gguf"
    shutil.copy(llama, cut)
    os.truncate(cut, llama.stat().st_size * 2 // 3)
    assert ask(cut) == exact


def test_a_model_without_vocabulary_can_be_planned(exact: Footprint, tmp_path: Path) -> None:
    planned = ask(write_tiny("llama", tmp_path, vocab=False))
    assert planned.n_vocab == exact.n_vocab == 512
    assert planned.bytes_of(BufferKind.KV) == exact.bytes_of(BufferKind.KV)
    assert planned.bytes_of(BufferKind.COMPUTE) == exact.bytes_of(BufferKind.COMPUTE)


def test_no_copy_of_a_header_is_left_behind(llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    ask(llama)
    assert list(tmp_path.iterdir()) == []


def test_answers_are_kept_and_settings_that_do_not_matter_are_one(llama: Path) -> None:
    with DryRun(read_model_file(llama)) as dry_run:
        first = dry_run.ask(PLAIN)
        dry_run.let_go()
        grown = dataclasses.replace(
            PLAIN, context=dataclasses.replace(PLAIN.context, allocation="reserve", n_threads=7)
        )
        assert dry_run.ask(grown) == dataclasses.replace(first, settings=grown)
        assert dry_run.pid is None


def test_the_helper_goes_when_it_is_let_go(llama: Path) -> None:
    dry_run = DryRun(read_model_file(llama))
    dry_run.ask(PLAIN)
    pid = dry_run.pid
    assert pid is not None
    assert psutil.pid_exists(pid)
    dry_run.let_go()
    assert not psutil.pid_exists(pid)


def test_a_killed_helper_is_replaced(llama: Path, exact: Footprint) -> None:
    with DryRun(read_model_file(llama)) as dry_run:
        dry_run.ask(dataclasses.replace(PLAIN, context=ContextSettings(n_ctx=512)))
        pid = dry_run.pid
        assert pid is not None
        psutil.Process(pid).kill()
        assert dry_run.ask(PLAIN) == exact
        assert dry_run.pid != pid


def test_llama_cpps_refusal_is_a_sentence_with_the_nearest_settings(folder: Path, home: Path) -> None:
    grok = write_tiny("grok", folder)
    with Pricer(read_model_file(grok), Calibration(home / "calibration.json")) as pricer:
        quantized = dataclasses.replace(PLAIN, context=ContextSettings(n_ctx=512, type_v="q8_0"))
        with pytest.raises(SettingsError, match="Flash Attention") as caught:
            pricer.footprint(quantized)
    assert caught.value.nearest.context.type_v == "f16"


def test_settings_that_kill_llama_cpp_are_refused_not_estimated(folder: Path, home: Path) -> None:
    """Three sequences make minimax-01's graph fail an assertion in 0.3.36."""
    model = read_model_file(write_tiny("minimax-01", folder))
    deadly = dataclasses.replace(PLAIN, context=ContextSettings(n_ctx=1024, n_seq_max=3))
    with DryRun(model) as dry_run, pytest.raises(HelperDiedError, match="SIGABRT"):
        dry_run.ask(deadly)
    with (
        Pricer(model, Calibration(home / "calibration.json")) as pricer,
        pytest.raises(SettingsError, match=r"llama\.cpp fails") as caught,
    ):
        pricer.footprint(deadly)
    assert caught.value.nearest.context.n_seq_max == 1


@pytest.mark.logs("dry run of .* failed")
def test_a_model_llama_cpp_does_not_know_is_estimated_and_says_so(folder: Path, home: Path, tmp_path: Path) -> None:
    unknown = tmp_path / "unknown.gguf"
    text = write_tiny("llama", folder, file_name="known.gguf").read_bytes()
    unknown.write_bytes(
        text.replace(b"llama.", b"limbo.").replace(b"\x05\0\0\0\0\0\0\0llama", b"\x05\0\0\0\0\0\0\0limbo")
    )
    with (
        DryRun(read_model_file(unknown)) as dry_run,
        pytest.raises(PlanError, match="unknown model architecture: 'limbo'"),
    ):
        dry_run.ask(PLAIN)
    with Pricer(read_model_file(unknown), Calibration(home / "calibration.json")) as pricer:
        plan = pricer.plan(PLAIN, ())
    assert plan.source == ESTIMATE
    assert any("estimate" in warning and "limbo" in warning for warning in plan.warnings)
    assert plan.kv.total_bytes > 0


def split(path: Path, folder: Path) -> Path:
    """``path`` as a model in two parts; the first one's path."""
    reader = gguf.GGUFReader(path)
    half = len(reader.tensors) // 2
    for number, tensors in enumerate((reader.tensors[:half], reader.tensors[half:])):
        part = folder / f"model-{number + 1:05}-of-00002.gguf"
        writer = gguf.GGUFWriter(part, "llama")
        for field in reader.fields.values() if number == 0 else ():
            if not field.name.startswith("GGUF.") and field.name != "general.architecture":
                inner = field.types[-1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
                writer.add_key_value(field.name, field.contents(), field.types[0], inner)
        writer.add_uint16("split.no", number)
        writer.add_uint16("split.count", 2)
        writer.add_int32("split.tensors.count", len(reader.tensors))
        for tensor in tensors:
            writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
    return folder / "model-00001-of-00002.gguf"


def test_a_split_model_is_planned_from_its_parts(llama: Path, exact: Footprint, tmp_path: Path, home: Path) -> None:
    first = split(llama, tmp_path)
    planned = ask(first)
    for kind in (BufferKind.KV, BufferKind.COMPUTE, BufferKind.OUTPUT):
        assert planned.bytes_of(kind) == exact.bytes_of(kind)
    with RealLoads() as reality:
        assert differences(reality.load(first, PLAIN), planned) == []
    (tmp_path / "model-00002-of-00002.gguf").unlink()
    with (
        Pricer(read_model_file(first), Calibration(home / "calibration.json")) as pricer,
        pytest.raises(PlanError, match="00002-of-00002"),
    ):
        pricer.footprint(PLAIN)


@pytest.mark.skipif(sys.platform == "win32", reason="stops a process by signal")
def test_a_helper_that_hangs_is_given_up(llama: Path, exact: Footprint) -> None:
    with DryRun(read_model_file(llama), timeout_s=1.0) as dry_run:
        dry_run.ask(dataclasses.replace(PLAIN, context=ContextSettings(n_ctx=512)))
        assert dry_run.pid is not None
        os.kill(dry_run.pid, signal.SIGSTOP)
        with pytest.raises(PlanError, match="no plan within 1 s"):
            dry_run.ask(PLAIN)
        dry_run_again = DryRun(read_model_file(llama))
        assert dry_run_again.ask(PLAIN) == exact
        dry_run_again.let_go()


def test_repacked_weights_are_tried_before_they_are_counted_on(folder: Path, home: Path) -> None:
    path = write_tiny("llama", folder, weight_type="q4_0", file_name="quantized.gguf")
    repacked = dataclasses.replace(PLAIN, model=ModelSettings(use_extra_bufts=True))
    with (
        DryRun(read_model_file(path)) as dry_run,
        Pricer(read_model_file(path), Calibration(home / "calibration.json")) as pricer,
    ):
        extra = [b for b in dry_run.ask(repacked).buffers if b.name not in ("CPU", "CPU_Mapped")]
        planned = pricer.footprint(repacked)
        works = dry_run.repacking_works()
    assert planned.source == DRY_RUN
    if extra and not works:
        assert NO_REPACKING in planned.warnings
        assert planned.settings.model.use_extra_bufts is False
    else:
        assert [b for b in planned.buffers if b.name not in ("CPU", "CPU_Mapped")] == extra


def test_the_log_alone_is_nearly_as_good(folder: Path) -> None:
    """What Windows gets, where the breakdown cannot be read."""
    from kvdesk.backend.llama.sizing import memory_breakdown
    from kvdesk.backend.llama.sizing.no_alloc_model import PlannedModel

    for architecture in ("gemma3", "lfm2"):
        path = write_tiny(architecture, folder)
        model = PlannedModel(path, PLAIN.model, read_model_file(path).tensors)
        with pytest.MonkeyPatch.context() as patch:
            whole = model.footprint(PLAIN.context)
            patch.setattr(memory_breakdown, "read", lambda _context: None)
            logged = model.footprint(PLAIN.context)
        model.close()
        assert logged.caches != ()
        for kind in BufferKind:
            assert abs(logged.bytes_of(kind) - whole.bytes_of(kind)) < 32 * 1024, (architecture, kind)


def test_a_temporary_folder_that_cannot_be_used_is_named_and_the_model_is_not_blamed(
    llama: Path, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "gone"))
    with DryRun(read_model_file(llama)) as dry_run:
        with pytest.raises(PlanError, match=r"temporary files in .*gone"):
            dry_run.ask(PLAIN)
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
        assert dry_run.ask(PLAIN).source == DRY_RUN


def test_weights_that_the_dry_run_pins_for_a_gpu_are_pages_of_the_file_in_a_mapped_load() -> None:
    """No machine of the tests has a GPU with host buffers of its own; tools/gpu_check.py sees the whole of it on one."""
    from kvdesk.backend.llama import library
    from kvdesk.backend.llama.sizing.memory_breakdown import Share, mapped_weights_in_ram

    library.start()
    plain = library.cpu_buffer_type()
    on_card = Share(1, "CUDA0", "CUDA0", False, 500, 60, 7)
    pinned = Share(2, "CUDA_Host", "CPU", False, 300, 0, 9, pinned=True)
    in_ram = Share(plain, "CPU", "CPU", True, 40, 0, 0)
    compute_stays = dataclasses.replace(pinned, model_bytes=0)
    assert mapped_weights_in_ram([on_card, pinned, in_ram]) == [
        on_card,
        compute_stays,
        dataclasses.replace(in_ram, model_bytes=340),
    ]
    assert mapped_weights_in_ram([on_card, in_ram]) == [on_card, in_ram]
    assert mapped_weights_in_ram([on_card, pinned]) == [
        on_card,
        compute_stays,
        dataclasses.replace(in_ram, model_bytes=300),
    ]


def test_what_is_too_large_to_ask_for_is_extended_from_what_is_not(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kvdesk.backend.llama.sizing import no_alloc_model

    path = write_tiny("lfm2", folder)
    model = no_alloc_model.PlannedModel(path, PLAIN.model, read_model_file(path).tensors)
    long, many = ContextSettings(n_ctx=65536), ContextSettings(n_ctx=16 * 512, n_seq_max=16)
    asked = [model.footprint(long), model.footprint(many)]
    monkeypatch.setattr(no_alloc_model, "LONGEST_ASKED", 16384)
    monkeypatch.setattr(no_alloc_model, "MOST_STATE_BYTES", 5000)
    extended = [model.footprint(long), model.footprint(many)]
    model.close()
    for exact, drawn in zip(asked, extended, strict=True):
        assert (drawn.n_ctx, drawn.n_ctx_seq) == (exact.n_ctx, exact.n_ctx_seq)
        for kind in BufferKind:
            assert abs(drawn.bytes_of(kind) - exact.bytes_of(kind)) <= 0.01 * exact.bytes_of(kind)
