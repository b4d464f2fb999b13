"""What the system tells a process, changed by libraries that it is started with (Linux and cc)."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import sys
from pathlib import Path
from typing import Self

import pytest

_SHARED = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>
static int64_t none[3];
static volatile int64_t *told = none;
__attribute__((constructor)) static void begin(void) {
    int file = syscall(SYS_openat, AT_FDCWD, getenv("PRELOADED_NUMBERS"), O_RDWR | O_CLOEXEC);
    void *shared = mmap(0, sizeof none, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (shared != MAP_FAILED) told = shared;
    syscall(SYS_close, file);
}
"""
_CLOCK = r"""
static int64_t ahead(clockid_t which) {
    switch (which) {
        case CLOCK_REALTIME: case CLOCK_REALTIME_COARSE: return told[0] + told[1];
        case CLOCK_BOOTTIME: return told[1];
        default: return 0;
    }
}
int clock_gettime(clockid_t which, struct timespec *now) {
    int failed = syscall(SYS_clock_gettime, which, now);
    if (!failed) now->tv_sec += ahead(which);
    return failed;
}
time_t time(time_t *out) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (out) *out = now.tv_sec;
    return now.tv_sec;
}
int gettimeofday(struct timeval *restrict out, void *restrict zone) {
    struct timespec now;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &now);
    out->tv_sec = now.tv_sec;
    out->tv_usec = now.tv_nsec / 1000;
    return 0;
}
"""
_DISK = r"""
static int is_ours(const char *path) {
    const char *home = getenv("PRELOADED_HOME");
    if (!path || !home || strncmp(path, home, strlen(home))) return 0;
    return strncmp(path + strlen(home), "/lives", 6);  // which are the tests' own
}
static int is_full(const char *path) {
    if (!is_ours(path)) return 0;
    int64_t number = __atomic_add_fetch(&told[0], 1, __ATOMIC_SEQ_CST);
    if (number < told[1] || number >= told[2]) return 0;
    errno = ENOSPC;
    return 1;
}
static int is_file_full(int file) {
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return is_full(path);
}
static int makes(const char *path, int flags) {
    return (flags & O_CREAT) && faccessat(AT_FDCWD, path, F_OK, 0);
}
#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
#define OPEN(name) int name(const char *path, int flags, ...) { \
    va_list rest; va_start(rest, flags); mode_t mode = va_arg(rest, mode_t); va_end(rest); \
    return makes(path, flags) && is_full(path) ? -1 : REAL(name)(path, flags, mode); }
OPEN(open)
OPEN(open64)
ssize_t write(int file, const void *from, size_t size) {
    return is_file_full(file) ? -1 : syscall(SYS_write, file, from, size);
}
ssize_t pwrite(int file, const void *from, size_t size, off_t at) {
    return is_file_full(file) ? -1 : REAL(pwrite)(file, from, size, at);
}
ssize_t pwrite64(int file, const void *from, size_t size, off64_t at) {
    return is_file_full(file) ? -1 : REAL(pwrite64)(file, from, size, at);
}
int mkdir(const char *path, mode_t mode) {
    return is_full(path) ? -1 : REAL(mkdir)(path, mode);
}
int rename(const char *from, const char *to) {
    return is_full(to) ? -1 : REAL(rename)(from, to);
}
"""


class _Preloaded:
    """A library of `source`, built in `folder`, and the numbers that it goes by."""

    def __init__(self, folder: Path, source: str, *numbers: int):
        if sys.platform != "linux" or not shutil.which("cc"):
            pytest.skip("needs Linux and a C compiler")
        folder.mkdir(exist_ok=True)
        self._file = folder / "numbers"
        self._file.write_bytes(struct.pack("<3q", *numbers))
        library, code = folder / "library.so", folder / "library.c"
        code.write_text(_SHARED + source, "ascii")
        subprocess.run(["cc", "-shared", "-fPIC", "-o", library, code, "-ldl"], check=True)
        self.environment = {"LD_PRELOAD": str(library), "PRELOADED_NUMBERS": str(self._file)}

    @classmethod
    def here(cls) -> Self:
        """That of a process which was started with it."""
        it = cls.__new__(cls)
        it._file = Path(os.environ["PRELOADED_NUMBERS"])
        return it

    def _tell(self, *numbers: int) -> None:
        with self._file.open("r+b") as file:
            file.write(struct.pack(f"<{len(numbers)}q", *numbers))

    def _told(self) -> tuple[int, ...]:
        return struct.unpack("<3q", self._file.read_bytes())


class SettableClock(_Preloaded):
    """The clocks of processes that have its `environment`. Seconds."""

    def __init__(self, folder: Path):
        super().__init__(folder, _CLOCK, 0, 0, 0)

    def set_ahead(self, seconds: int) -> None:
        """Somebody sets the wall clock."""
        self._tell(seconds)

    def sleep(self, seconds: int) -> None:
        """The machine has slept: all clocks go on but the monotonic one."""
        ahead, slept, _ = self._told()
        self._tell(ahead, slept + seconds)


class FullDisk(_Preloaded):
    """What lies below `home` finds no room any more, from one write to another.

    Writes are those into files, and files and names that are made.
    """

    def __init__(self, folder: Path, home: Path):
        super().__init__(folder, _DISK, 0, 0, 0)
        self.environment["PRELOADED_HOME"] = str(home)

    def fill_at(self, write: int, until: int = 1 << 62) -> None:
        """From the so manieth write from now on, counted from 1."""
        self._tell(0, write, until)

    def clear(self) -> None:
        """There is room again."""
        self._tell(self.last, 0, 0)

    @property
    def last(self) -> int:
        """The number of the last write."""
        return self._told()[0]
