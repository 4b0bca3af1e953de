"""The machine's readings: real processes measured for real, control groups as file trees, GPUs as a made-up driver."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from kvdesk.backend.protocol.facts import Buffer, BufferKind, Device
from kvdesk.backend.system.cgroup import MemoryGroup, memory_groups
from kvdesk.backend.system.machine import (
    FDINFO,
    NO_ENGINE,
    NOT_USED,
    OWN_BUFFERS,
    PER_PROCESS,
    UNKNOWN,
    USED_MINUS_BEFORE,
    Machine,
    read_domains,
)
from kvdesk.backend.system.nvml import Nvml, pci_address
from kvdesk.backend.system.process_memory import descendants, engine_memory, process_memory
from kvdesk.backend.system.samples import DomainReading
from tests.fakes.fake_pynvml import FakeGpu, FakePynvml

MIB = 1024 * 1024
GIB = 1024 * MIB

linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

HOLDER = """
import mmap, subprocess, sys
anonymous, path, child = int(sys.argv[1]), sys.argv[2], sys.argv[3]
if child == "child":
    other = subprocess.Popen([sys.executable, "-c", sys.argv[4], sys.argv[1], "", "alone", ""], stdin=0, stdout=1)
block = bytearray(anonymous)
block[::4096] = b"1" * len(block[::4096])
if path:
    file = open(path, "rb")
    mapped = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
    touched = sum(mapped[::4096])
print("ready", flush=True)
sys.stdin.read()
"""


@contextmanager
def holder(anonymous: int, mapped: Path | None = None, child: str = "alone") -> Iterator[subprocess.Popen[bytes]]:
    """A process that holds so much memory until the block ends; with a child when asked, which holds as much again."""
    arguments = [str(anonymous), str(mapped or ""), child, HOLDER]
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        for _ in range(2 if child == "child" else 1):
            assert process.stdout.readline() == b"ready\n"
        yield process
    finally:
        process.stdin.close()
        process.wait(10)
        process.stdout.close()


def fake_root(tmp_path: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


MEMINFO = "MemTotal: 16777216 kB\nMemFree: 1 kB\nMemAvailable: 8388608 kB\nSwapTotal: 2048 kB\nSwapFree: 1024 kB\n"
V2_MOUNT = "31 23 0:28 / /sys/fs/cgroup rw,relatime - cgroup2 cgroup2 rw\n"
V1_MOUNT = (
    "31 23 0:28 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n"
    "32 23 0:29 / /sys/fs/cgroup/memory rw shared:9 - cgroup cgroup rw,memory\n"
)


# --- processes, for real -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("exact", [False, True])
@linux
def test_memory_of_a_real_process_is_split_into_anonymous_and_mapped(tmp_path: Path, exact: bool) -> None:
    weights = tmp_path / "weights"
    weights.write_bytes(b"w" * (48 * MIB))
    with holder(MIB) as small, holder(65 * MIB, weights) as large:
        before, after = (engine_memory(process.pid, exact=exact) for process in (small, large))
        assert before is not None
        assert after is not None
        assert after.anonymous_bytes - before.anonymous_bytes == pytest.approx(64 * MIB, abs=2 * MIB)
        assert after.file_bytes - before.file_bytes == pytest.approx(48 * MIB, abs=2 * MIB)
        assert after.resident_bytes == after.anonymous_bytes + after.file_bytes
        assert after.peak_bytes >= after.resident_bytes - 2 * MIB
        rss = psutil.Process(large.pid).memory_info().rss
        assert after.resident_bytes == pytest.approx(rss, abs=2 * MIB)


@linux
def test_children_of_the_engine_count_as_the_engine() -> None:
    with holder(40 * MIB, child="child") as process:
        children = descendants(process.pid)
        assert len(children) == 1
        alone, together = process_memory(process.pid), engine_memory(process.pid)
        assert alone is not None
        assert together is not None
        assert together.anonymous_bytes - alone.anonymous_bytes > 40 * MIB
        assert together.peak_bytes == alone.peak_bytes


@linux
def test_a_process_that_is_gone_is_unknown_not_zero() -> None:
    with holder(MIB) as process:
        pid = process.pid
    assert engine_memory(pid) is None
    ram = Machine().read(pid).domains[0]
    assert ram.engine_bytes is None
    assert ram.engine_source == UNKNOWN
    assert ram.ceiling_bytes is None
    assert ram.available_bytes


@linux
def test_a_zombie_holds_nothing_that_could_be_read() -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # it has exited and nobody has taken its leave
    assert engine_memory(process.pid) is None
    process.wait()


@linux
def test_this_machines_ram_is_what_the_system_says() -> None:
    before = psutil.virtual_memory()
    ram = read_domains(os.getpid())[0]
    system = psutil.virtual_memory()
    assert (ram.name, ram.kind) == ("RAM", "ram")
    assert ram.capacity_bytes <= system.total
    assert (
        ram.available_bytes <= max(before.available, system.available) + 512 * MIB
    )  # other programs move it meanwhile
    own = psutil.Process()
    held = sum(process.memory_info().rss for process in (own, *own.children(recursive=True)))
    assert ram.engine_bytes == pytest.approx(held, rel=0.1)
    assert ram.ceiling_bytes == ram.engine_anonymous_bytes + ram.available_bytes
    assert ram.used_bytes == pytest.approx(ram.others_bytes + ram.engine_anonymous_bytes, abs=MIB)


@linux
def test_what_the_engine_takes_leaves_the_ceiling_where_it_was() -> None:
    """Memory moves from available to the engine's own; only other programs move the ceiling."""
    machine = Machine()
    with holder(MIB) as small, holder(400 * MIB) as large:
        without, with_it = machine.read(small.pid).domains[0], machine.read(large.pid).domains[0]
    gained = with_it.ceiling_bytes - without.ceiling_bytes
    assert gained == pytest.approx(399 * MIB, abs=100 * MIB)  # the same machine, but 399 MiB of it are ours in one view
    assert without.others_bytes - with_it.others_bytes == pytest.approx(399 * MIB, abs=100 * MIB)


# --- control groups ------------------------------------------------------------------------------------------------


def v2_group(limit: str, current: int, cache: int, high: str = "max") -> dict[str, str]:
    return {
        "memory.max": f"{limit}\n",
        "memory.high": f"{high}\n",
        "memory.current": f"{current}\n",
        "memory.stat": f"anon 1\ninactive_file {cache // 2}\nactive_file {cache - cache // 2}\nslab 7\n",
        "memory.peak": f"{current + 5}\n",
    }


def below(folder: str, files: dict[str, str]) -> dict[str, str]:
    return {f"{folder}/{name}": text for name, text in files.items()}


@linux
@pytest.mark.parametrize(
    ("version", "name", "text"),
    [
        (2, "memory.events", "low 0\noom 3\noom_kill 2\noom_group_kill 0\n"),
        (1, "memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n"),
    ],
)
def test_a_group_tells_how_many_were_killed_for_memory(tmp_path: Path, version: int, name: str, text: str) -> None:
    group = MemoryGroup(tmp_path, version)
    assert group.oom_kills() is None
    (tmp_path / name).write_text(text)
    assert group.oom_kills() == 2


@linux
def test_the_tightest_group_of_the_whole_chain_binds(tmp_path: Path) -> None:
    root = fake_root(
        tmp_path,
        {
            "proc/meminfo": MEMINFO,
            "proc/self/cgroup": "0::/user.slice/app.scope\n",
            "proc/self/mountinfo": V2_MOUNT,
            **below("sys/fs/cgroup/user.slice", v2_group(str(4 * GIB), 3 * GIB, GIB)),
            **below("sys/fs/cgroup/user.slice/app.scope", v2_group("max", GIB, 0)),
        },
    )
    assert [group.folder.name for group in memory_groups(root=root)] == ["app.scope", "user.slice", "cgroup"]
    reading = Machine(root).read()
    ram = reading.domains[0]
    assert ram.capacity_bytes == 4 * GIB
    assert ram.available_bytes == 4 * GIB - (3 * GIB - GIB)
    assert reading.swap_total_bytes == 2 * MIB
    assert reading.swap_used_bytes == MIB
    assert reading.cgroup_peak_bytes == GIB + 5
    assert ram.engine_source == NO_ENGINE


@linux
def test_memory_high_binds_too_and_the_machine_may_have_less_than_the_group_allows(tmp_path: Path) -> None:
    files = {
        "proc/meminfo": MEMINFO,
        "proc/self/cgroup": "0::/a\n",
        "proc/self/mountinfo": V2_MOUNT,
        **below("sys/fs/cgroup/a", v2_group(str(15 * GIB), 0, 0, high=str(12 * GIB))),
    }
    ram = Machine(fake_root(tmp_path, files)).read().domains[0]
    assert ram.capacity_bytes == 12 * GIB
    assert ram.available_bytes == 8 * GIB


@linux
def test_version_1_counts_the_whole_subtree_and_knows_its_own_word_for_no_limit(tmp_path: Path) -> None:
    leaf = {
        "memory.limit_in_bytes": "9223372036854771712\n",
        "memory.usage_in_bytes": f"{GIB}\n",
        "memory.stat": "",
        "memory.max_usage_in_bytes": "77\n",
    }
    parent = {
        "memory.limit_in_bytes": f"{2 * GIB}\n",
        "memory.usage_in_bytes": f"{GIB}\n",
        "memory.stat": f"inactive_file 1\nactive_file 1\ntotal_inactive_file {256 * MIB}\ntotal_active_file {256 * MIB}\n",
    }
    root = fake_root(
        tmp_path,
        {
            "proc/meminfo": MEMINFO,
            "proc/self/cgroup": "4:memory:/box/leaf\n1:cpu:/\n0::/\n",
            "proc/self/mountinfo": V1_MOUNT + V2_MOUNT,
            **below("sys/fs/cgroup/memory/box/leaf", leaf),
            **below("sys/fs/cgroup/memory/box", parent),
        },
    )
    reading = Machine(root).read()
    assert reading.domains[0].capacity_bytes == 2 * GIB
    assert reading.domains[0].available_bytes == 2 * GIB - 512 * MIB
    assert reading.cgroup_peak_bytes == 77


@pytest.mark.parametrize(
    ("mounted", "path"), [("/docker/abc", "/docker/abc"), ("/docker/abc", "/elsewhere"), ("/", "/../outside")]
)
@linux
def test_a_container_that_sees_only_its_own_group(tmp_path: Path, mounted: str, path: str) -> None:
    root = fake_root(
        tmp_path,
        {
            "proc/meminfo": MEMINFO,
            "proc/self/cgroup": f"0::{path}\n",
            "proc/self/mountinfo": f"31 23 0:28 {mounted} /sys/fs/my\\040cgroup rw - cgroup2 cgroup2 rw\n",
            **below("sys/fs/my cgroup", v2_group(str(GIB), 300 * MIB, 100 * MIB)),
        },
    )
    ram = Machine(root).read().domains[0]
    assert (ram.capacity_bytes, ram.available_bytes) == (GIB, GIB - 200 * MIB)


@linux
def test_the_engines_own_group_counts_where_it_has_one(tmp_path: Path) -> None:
    root = fake_root(
        tmp_path,
        {
            "proc/meminfo": MEMINFO,
            "proc/self/cgroup": "0::/\n",
            "proc/self/mountinfo": V2_MOUNT,
            "proc/77/cgroup": "0::/engine\n",
            "proc/77/status": "VmRSS: 2048 kB\nVmHWM: 4096 kB\nRssAnon: 512 kB\nRssFile: 1024 kB\nRssShmem: 512 kB\nVmSwap: 4 kB\n",
            **below("sys/fs/cgroup/engine", v2_group(str(2 * GIB), 0, 0)),
        },
    )
    machine = Machine(root)
    assert machine.read().domains[0].capacity_bytes == 16 * GIB
    reading = machine.read(77)
    ram = reading.domains[0]
    assert ram.capacity_bytes == 2 * GIB
    assert (ram.engine_bytes, ram.engine_anonymous_bytes, ram.engine_file_bytes) == (2 * MIB, MIB, MIB)
    assert reading.engine_peak_bytes == 4 * MIB
    assert reading.engine_swap_bytes == 4096


@linux
def test_nothing_to_read_is_unknown_and_no_error(tmp_path: Path) -> None:
    reading = Machine(tmp_path).read(77)
    assert reading.domains == (DomainReading("RAM", "ram", None, None, engine_source=UNKNOWN),)
    assert reading.domains[0].ceiling_bytes is None
    assert reading.domains[0].oom_line(MIB) is None
    assert reading.domains[0].others_bytes is None
    assert reading.swap_total_bytes is None


@linux
def test_garbage_in_the_kernels_files_is_unknown(tmp_path: Path) -> None:
    files = {
        "proc/meminfo": "MemTotal: many kB\nMemAvailable:\n\xff\n",
        "proc/self/cgroup": "nonsense\n0::/a\n::\n",
        "proc/self/mountinfo": "short\n - \n" + V2_MOUNT,
        **below("sys/fs/cgroup/a", {"memory.max": "-5\n", "memory.current": "x", "memory.stat": "inactive_file\n"}),
    }
    ram = Machine(fake_root(tmp_path, files)).read().domains[0]
    assert (ram.capacity_bytes, ram.available_bytes) == (None, None)


# --- devices -------------------------------------------------------------------------------------------------------


def gpu_machine(*gpus: FakeGpu) -> Machine:
    binding = FakePynvml(*gpus)
    return Machine(nvml=Nvml(lambda: binding))


def cuda(name: str = "CUDA0", device_id: str = "0000:01:00.0", free: int = 20 << 30, total: int = 24 << 30) -> Device:
    return Device(name, "NVIDIA GeForce RTX 4090", "gpu", free, total, device_id)


def weights(device: str, size: int) -> Buffer:
    return Buffer(device, device, BufferKind.WEIGHTS, size)


def test_without_a_driver_there_is_no_gpu_and_a_reason() -> None:
    binding = FakePynvml(driver=False)
    machine = Machine(nvml=Nvml(lambda: binding))
    assert [domain.name for domain in machine.read().domains] == ["RAM"]
    assert machine.gpu_why.endswith(".")
    assert "driver" in machine.gpu_why
    machine.read()
    assert binding.inits == 1


@pytest.mark.skipif(
    sys.platform != "linux" or Path("/proc/driver/nvidia").exists(), reason="needs a machine without a driver"
)
def test_a_machine_without_the_driver_does_not_pay_for_its_binding() -> None:
    looked = "from kvdesk.backend.system.machine import Machine; m = Machine(); m.read(); print(m.gpu_why)"
    said = subprocess.run(
        [sys.executable, "-c", f"{looked}; import sys; print('pynvml' in sys.modules)"],
        capture_output=True, text=True, check=True, cwd=Path(__file__).parents[3],
    )  # fmt: skip
    assert said.stdout == "There is no NVIDIA driver on this machine.\nFalse\n"


def test_without_the_binding_there_is_a_reason_too() -> None:
    def missing() -> object:
        raise ModuleNotFoundError("pynvml")

    machine = Machine(nvml=Nvml(missing))
    machine.read()
    assert "nvidia-ml-py" in machine.gpu_why


def test_nvml_tells_the_engines_share_where_the_system_does() -> None:
    gpu = FakeGpu(processes={os.getpid(): 3 * GIB, 1: GIB})
    reading = gpu_machine(gpu).read(os.getpid()).domains[1]
    assert (reading.name, reading.kind, reading.engine_source) == ("CUDA0", "gpu", PER_PROCESS)
    assert reading.engine_bytes == 3 * GIB
    assert reading.others_bytes == GIB
    assert reading.ceiling_bytes == 23 * GIB
    assert reading.oom_line(GIB) == 22 * GIB


@pytest.mark.parametrize("processes", [{}, {os.getpid(): None}, {999_999: 3 * GIB}])
def test_else_the_devices_use_since_before_the_engine_came(processes: dict[int, int | None]) -> None:
    gpu = FakeGpu(processes=processes)
    machine = gpu_machine(gpu)
    assert machine.read().domains[1].engine_bytes == 0
    gpu.free -= 5 * GIB
    reading = machine.read(os.getpid()).domains[1]
    assert (reading.engine_bytes, reading.engine_source) == (5 * GIB, USED_MINUS_BEFORE)
    assert reading.others_bytes == 4 * GIB


def test_a_monitor_that_came_after_the_engine_takes_llama_cpps_word_or_says_unknown() -> None:
    gpu = FakeGpu()
    reading = gpu_machine(gpu).read(os.getpid()).domains[1]
    assert (reading.engine_bytes, reading.engine_source) == (None, UNKNOWN)
    assert reading.ceiling_bytes is None
    reading = gpu_machine(gpu).read(os.getpid(), [cuda()], [weights("CUDA0", GIB), weights("CPU", MIB)]).domains[1]
    assert (reading.engine_bytes, reading.engine_source) == (GIB, OWN_BUFFERS)


@pytest.mark.parametrize(
    "call",
    [
        "nvmlDeviceGetHandleByIndex",
        "nvmlDeviceGetName",
        "nvmlDeviceGetPciInfo",
        "nvmlDeviceGetMemoryInfo",
        "nvmlDeviceGetComputeRunningProcesses",
    ],
)
def test_a_call_that_fails_is_unknown_and_the_others_are_read(call: str) -> None:
    sick, well = FakeGpu(broken={call}), FakeGpu(bus_id=b"00000000:02:00.0", processes={os.getpid(): GIB})
    machine = gpu_machine(sick, well)
    readings = machine.read(os.getpid()).domains[1:]
    assert readings[1].engine_bytes == GIB
    if call in ("nvmlDeviceGetHandleByIndex", "nvmlDeviceGetMemoryInfo"):
        assert (readings[0].capacity_bytes, readings[0].available_bytes) == (None, None)
    assert readings[0].engine_bytes is None
    sick.broken.clear()


def test_a_gpu_that_falls_off_the_bus_turns_unknown() -> None:
    gpu = FakeGpu(processes={os.getpid(): GIB})
    machine = gpu_machine(gpu)
    assert machine.read(os.getpid()).domains[1].engine_bytes == GIB
    gpu.broken |= {"nvmlDeviceGetMemoryInfo", "nvmlDeviceGetComputeRunningProcesses"}
    reading = machine.read(os.getpid()).domains[1]
    assert (reading.capacity_bytes, reading.engine_bytes) == (None, None)


def test_the_pci_address_decides_which_card_is_which() -> None:
    first, second = FakeGpu(), FakeGpu(bus_id=b"00000000:C1:00.0", free=7 * GIB)
    devices = [cuda("CUDA0", "0000:c1:00.0"), cuda("CUDA1", "0000:01:00.0")]
    readings = {one.name: one for one in gpu_machine(first, second).read(None, devices).domains}
    assert readings["CUDA0"].available_bytes == 7 * GIB
    assert readings["CUDA1"].available_bytes == 20 * GIB


def test_a_card_the_engine_does_not_see_is_shown_and_not_the_engines() -> None:
    machine = gpu_machine(FakeGpu(), FakeGpu(bus_id=b"00000000:02:00.0"))
    readings = machine.read(os.getpid(), [cuda("CUDA0", "0000:02:00.0")]).domains
    assert [(one.name, one.engine_source) for one in readings[1:]] == [("GPU0", NOT_USED), ("CUDA0", UNKNOWN)]


def test_of_two_equal_cards_without_an_address_neither_is_guessed() -> None:
    machine = gpu_machine(FakeGpu(free=GIB), FakeGpu(bus_id=b"00000000:02:00.0", free=2 * GIB))
    readings = {one.name: one for one in machine.read(None, [cuda("CUDA0", "", free=9 * GIB)]).domains}
    assert readings["CUDA0"].available_bytes == 9 * GIB
    assert {"GPU0", "GPU1"} <= set(readings)


def test_one_card_without_an_address_is_known_by_name_and_size() -> None:
    machine = gpu_machine(FakeGpu(free=GIB))
    readings = machine.read(None, [cuda("CUDA0", "", free=9 * GIB, total=int(23.6 * GIB))]).domains
    assert [(one.name, one.available_bytes) for one in readings[1:]] == [("CUDA0", GIB)]


def test_a_device_that_only_ggml_knows_is_read_from_its_list() -> None:
    def amd(free: int) -> Device:
        return Device("Vulkan0", "AMD Radeon", "gpu", free, 8 * GIB)

    machine = gpu_machine()
    cpu = Device("CPU", "x", "cpu", None, None)
    first = machine.read(5, [amd(7 * GIB), cpu]).domains
    assert [one.name for one in first] == ["RAM", "Vulkan0"]
    assert first[1].engine_bytes == 0
    fresh = machine.read(5, [amd(4 * GIB)], [weights("Vulkan0", 2 * GIB)]).domains[1]
    assert (fresh.engine_bytes, fresh.engine_source, fresh.available_bytes) == (3 * GIB, USED_MINUS_BEFORE, 4 * GIB)


# --- cards that Linux's drivers tell of (AMD, Intel): file trees, never a real card -----------------------------------

AMD = Device("Vulkan0", "AMD Radeon RX 7800 XT", "gpu", 15 * GIB, 16 * GIB, "0000:03:00.0")


def amd_machine(tmp_path: Path, used: int) -> Path:
    """A root with one amdgpu card."""
    device = tmp_path / "sys/devices/pci0000:00/0000:03:00.0"
    card = tmp_path / "sys/class/drm/card0"
    device.mkdir(parents=True)
    card.mkdir(parents=True)
    (card / "device").symlink_to(device)
    (device / "vendor").write_text("0x1002\n")
    (device / "mem_info_vram_total").write_text(f"{16 * GIB}\n")
    use_vram(tmp_path, used)
    return tmp_path


def use_vram(root: Path, used: int) -> None:
    (root / "sys/devices/pci0000:00/0000:03:00.0/mem_info_vram_used").write_text(f"{used}\n")


def open_card(root: Path, pid: int, number: int, client: int, **memory: str) -> None:
    """A process's descriptor ``number`` on the card, as the kernel's driver describes it."""
    folder = root / f"proc/{pid}/fdinfo"
    folder.mkdir(parents=True, exist_ok=True)
    lines = ["pos:\t0", "drm-driver:\tamdgpu", "drm-pdev:\t0000:03:00.0", f"drm-client-id:\t{client}"]
    lines += [f"{name.replace('_', '-')}:\t{amount}" for name, amount in memory.items()]
    (folder / str(number)).write_text("\n".join(lines) + "\n")


def test_an_amd_card_is_read_from_the_system_and_not_from_the_list_of_the_last_load(tmp_path: Path) -> None:
    machine = Machine(amd_machine(tmp_path, GIB))
    (before,) = machine.read(None, [AMD]).domains[1:]
    assert (before.capacity_bytes, before.available_bytes, before.engine_bytes) == (16 * GIB, 15 * GIB, 0)
    use_vram(tmp_path, 6 * GIB)
    (after,) = machine.read(os.getpid(), [AMD]).domains[1:]
    assert (after.available_bytes, after.engine_bytes) == (10 * GIB, 5 * GIB)
    assert after.engine_source == USED_MINUS_BEFORE


def test_the_driver_tells_what_the_engine_holds_on_the_card(tmp_path: Path) -> None:
    root = amd_machine(tmp_path, 6 * GIB)
    open_card(root, 4711, 5, client=12, drm_memory_vram="3145728 KiB", drm_memory_gtt="1024 KiB")
    open_card(root, 4711, 6, client=12, drm_memory_vram="3145728 KiB")  # the same client's other descriptor
    open_card(root, 4711, 7, client=13, drm_resident_vram="512 MiB", drm_total_vram="900 MiB")
    open_card(root, 4712, 5, client=14, drm_memory_vram="1048576 KiB")  # another process
    (card,) = Machine(root).read(4711, [AMD]).domains[1:]
    assert (card.engine_bytes, card.engine_source) == (3 * GIB + 512 * MIB, FDINFO)


def test_a_card_whose_driver_tells_nothing_is_read_from_ggmls_list(tmp_path: Path) -> None:
    (card,) = Machine(tmp_path).read(None, [AMD]).domains[1:]
    assert (card.capacity_bytes, card.available_bytes) == (16 * GIB, 15 * GIB)


def test_a_list_older_than_the_load_does_not_hide_what_the_engine_holds() -> None:
    listed = Device("Vulkan0", "AMD Radeon", "gpu", 7 * GIB, 8 * GIB)
    machine = gpu_machine()
    machine.read(5, [listed])
    stale = machine.read(5, [listed], [weights("Vulkan0", 2 * GIB)]).domains[1]
    assert (stale.engine_bytes, stale.available_bytes, stale.engine_source) == (2 * GIB, 5 * GIB, OWN_BUFFERS)
    assert stale.ceiling_bytes == 7 * GIB
    assert stale.others_bytes == GIB


def test_a_worker_that_calls_all_its_memory_free_is_counted_by_buffers() -> None:
    worker = Device("RPC0[127.0.0.1:50052]", "CPU", "rpc", 16 * GIB, 16 * GIB)
    machine = gpu_machine()
    assert machine.read(5, [worker]).domains[1].engine_bytes is None
    reading = machine.read(5, [worker], [weights(worker.name, 3 * GIB)]).domains[1]
    assert (reading.kind, reading.engine_bytes, reading.available_bytes) == ("rpc", 3 * GIB, 13 * GIB)
    assert reading.ceiling_bytes == 16 * GIB


def test_a_device_whose_memory_ggml_does_not_tell_is_unknown() -> None:
    reading = gpu_machine().read(5, [Device("SYCL0", "Intel", "igpu", None, None)]).domains[1]
    assert (reading.kind, reading.capacity_bytes, reading.available_bytes) == ("igpu", None, None)
    assert reading.engine_bytes is None


@pytest.mark.parametrize(
    ("nvml", "ggml"),
    [("00000000:C1:00.0", "0000:c1:00.0"), ("00010000:01:00.0", "10000:01:00.0"), ("", ""), ("what", "")],
)
def test_pci_addresses_are_written_as_ggml_writes_them(nvml: str, ggml: str) -> None:
    assert pci_address(nvml) == ggml


# --- what the figures mean -----------------------------------------------------------------------------------------


def test_mapped_weights_do_not_count_against_the_ceiling() -> None:
    ram = DomainReading("RAM", "ram", 16 * GIB, 8 * GIB, 6 * GIB, 2 * GIB, 4 * GIB)
    assert ram.ceiling_bytes == 10 * GIB
    assert ram.oom_line(GIB) == 9 * GIB
    assert ram.others_bytes == 6 * GIB


def test_the_line_is_never_below_zero_nor_the_ceiling_above_the_capacity() -> None:
    assert DomainReading("RAM", "ram", 16 * GIB, 0, 5, 5, 0).oom_line(GIB) == 0
    assert DomainReading("CUDA0", "gpu", 8 * GIB, 6 * GIB, 4 * GIB).ceiling_bytes == 8 * GIB
