"""What a container may use is what its control group says; files are laid out as the kernel's."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from hordelib.memory.readings import main_memory

MIB = 1 << 20
NO_LIMIT_V1 = 9223372036854771712


def write(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text + "\n")


def in_group(root: Path, line: str) -> None:
    write(root / "proc/self", cgroup=f"9:name=systemd:/\n1:cpu:/elsewhere\n{line}")


def group_v2(folder: Path, limit: str, used_mib: int, file_mib: tuple[int, int] = (0, 0)) -> None:
    inactive, active = (mib * MIB for mib in file_mib)
    stat = f"anon 5\ninactive_file {inactive}\nactive_file {active}\nslab 7"
    write(folder, memory__max=limit, memory__current=str(used_mib * MIB), memory__stat=stat)


def group_v1(folder: Path, limit_bytes: int, used_mib: int) -> None:
    stat = f"cache 9\ntotal_inactive_file {10 * MIB}\ntotal_active_file {20 * MIB}"
    write(
        folder,
        memory__limit_in_bytes=str(limit_bytes),
        memory__usage_in_bytes=str(used_mib * MIB),
        memory__stat=stat,
    )


def test_without_a_limit_the_machine_counts(tmp_path: Path):
    in_group(tmp_path, "0::/")
    memory = main_memory(tmp_path)
    assert memory.total_bytes == psutil.virtual_memory().total
    assert 0 < memory.free_bytes < memory.total_bytes


@pytest.mark.parametrize("own", ["", "system.slice/docker-1"], ids=["in a container", "outside"])
def test_a_limit_of_version_2_counts_and_pages_of_files_are_free(tmp_path: Path, own: str):
    in_group(tmp_path, f"0::/{own}")
    group_v2(tmp_path / "sys/fs/cgroup" / own, str(100 * MIB), used_mib=70, file_mib=(15, 5))
    assert main_memory(tmp_path) == (100 * MIB, 50 * MIB)


def test_the_tightest_limit_above_the_process_counts(tmp_path: Path):
    in_group(tmp_path, "0::/pod/worker")
    pod = tmp_path / "sys/fs/cgroup/pod"
    group_v2(pod, str(80 * MIB), used_mib=60)
    group_v2(pod / "worker", "max", used_mib=10)
    assert main_memory(tmp_path) == (80 * MIB, 20 * MIB)


def test_a_limit_of_version_1_counts(tmp_path: Path):
    in_group(tmp_path, "4:memory:/docker/1")
    memory = tmp_path / "sys/fs/cgroup/memory"
    group_v1(memory / "docker/1", 200 * MIB, used_mib=150)
    group_v1(memory, NO_LIMIT_V1, used_mib=9000)
    assert main_memory(tmp_path) == (200 * MIB, 80 * MIB)


def test_a_group_that_is_hidden_from_a_container_is_looked_for_above(tmp_path: Path):
    in_group(tmp_path, "4:memory:/hidden/outside")
    group_v1(tmp_path / "sys/fs/cgroup/memory", 300 * MIB, used_mib=400)
    assert main_memory(tmp_path) == (300 * MIB, 0)


def test_this_machine_can_be_read():
    memory = main_memory()
    assert 0 < memory.free_bytes <= memory.total_bytes <= psutil.virtual_memory().total
