"""A disk that fails or is slow on demand: calls of the C library are interposed by LD_PRELOAD.

Only files below a directory that is named are concerned. What the library does is set at any time, through
memory that all processes share.
"""

import mmap
import os
import shutil
import struct
import subprocess
from pathlib import Path

import pytest

_SOURCE = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

enum { SYNC_ERROR, SYNC_MILLISECONDS, WRITE_ERROR, SYNCS, WRITES };
static volatile int64_t *control;
static const char *below;

__attribute__((constructor)) static void open_control(void) {
    const char *path = getenv("GREENROOM_TEST_DISK");
    below = getenv("GREENROOM_TEST_DISK_BELOW");
    if (!path || !below) return;
    int file = open(path, O_RDWR | O_CLOEXEC);
    if (file < 0) return;
    void *memory = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (memory != MAP_FAILED) control = memory;
    close(file);
}

static int concerned(int file) {
    char link[64], path[4096];
    if (!control) return 0;
    strcpy(link, "/proc/self/fd/");
    int at = strlen(link), digits = 1, rest = file;
    while (rest >= 10) { rest /= 10; digits++; }
    link[at + digits] = 0;
    do { link[at + --digits] = '0' + file % 10; file /= 10; } while (digits);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return strstr(path, below) != 0;
}

static int sync_result(int file) {
    if (!concerned(file)) return 0;
    __sync_fetch_and_add(&control[SYNCS], 1);
    int64_t milliseconds = control[SYNC_MILLISECONDS];
    if (milliseconds) {
        struct timespec pause = {milliseconds / 1000, milliseconds % 1000 * 1000000};
        nanosleep(&pause, 0);
    }
    return control[SYNC_ERROR];
}

#define SYNC(name) \
    int name(int file) { \
        static int (*real)(int); \
        if (!real) real = dlsym(RTLD_NEXT, #name); \
        int error = sync_result(file); \
        if (error) { errno = error; return -1; } \
        return real(file); \
    }
SYNC(fdatasync)
SYNC(fsync)

#define WRITE(name, offset_type) \
    ssize_t name(int file, const void *data, size_t size, offset_type offset) { \
        static ssize_t (*real)(int, const void *, size_t, offset_type); \
        if (!real) real = dlsym(RTLD_NEXT, #name); \
        if (concerned(file)) { \
            __sync_fetch_and_add(&control[WRITES], 1); \
            if (control[WRITE_ERROR]) { errno = control[WRITE_ERROR]; return -1; } \
        } \
        return real(file, data, size, offset); \
    }
WRITE(pwrite, off_t)
WRITE(pwrite64, off64_t)
"""
_LAYOUT = struct.Struct("@qqqqq")


class FaultyDisk:
    """The library, built in a folder. Skips the test visibly if there is no C compiler."""

    def __init__(self, folder: Path, below: str) -> None:
        compiler = shutil.which("cc") or shutil.which("gcc")
        if compiler is None:
            pytest.skip("there is no C compiler to build a faulty disk with")
        source, library, control = folder / "disk.c", folder / "disk.so", folder / "disk.control"
        source.write_text(_SOURCE)
        subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", library, source, "-ldl"], check=True)
        control.write_bytes(bytes(mmap.PAGESIZE))
        with control.open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), mmap.PAGESIZE)
        self.environment = {
            "LD_PRELOAD": str(library),
            "GREENROOM_TEST_DISK": str(control),
            "GREENROOM_TEST_DISK_BELOW": below,
        }

    def set(self, *, sync_error: int = 0, sync_milliseconds: int = 0, write_error: int = 0) -> None:
        """Let syncs take so long, and syncs and writes fail with these errors; 0: none."""
        _, _, _, syncs, writes = _LAYOUT.unpack_from(self._memory)
        _LAYOUT.pack_into(self._memory, 0, sync_error, sync_milliseconds, write_error, syncs, writes)

    @property
    def syncs(self) -> int:
        """How many syncs were asked for."""
        return int(_LAYOUT.unpack_from(self._memory)[3])

    @property
    def writes(self) -> int:
        """How many writes were asked for."""
        return int(_LAYOUT.unpack_from(self._memory)[4])

    def variables(self) -> dict[str, str]:
        """Return the environment of a process that has this disk."""
        return {**os.environ, **self.environment}
