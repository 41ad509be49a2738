"""A clock that is wrong: for all processes of a machine, by a small library loaded before libc.

`ahead` compiles it; the machine's instance is started with the environment that it returns.  What the
kernel itself dates (files) keeps the true time, as on a machine whose clock was set a moment ago.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

_SOURCE = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>

static long ahead(void) {
    const char *text = getenv("LAB_CLOCK_AHEAD");
    return text ? atol(text) : 0;
}

int clock_gettime(clockid_t id, struct timespec *now) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = (int (*)(clockid_t, struct timespec *)) dlsym(RTLD_NEXT, "clock_gettime");
    int result = real(id, now);
    if (!result && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE)) now->tv_sec += ahead();
    return result;
}

time_t time(time_t *result) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (result) *result = now.tv_sec;
    return now.tv_sec;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    struct timespec fine;
    (void) zone;
    clock_gettime(CLOCK_REALTIME, &fine);
    now->tv_sec = fine.tv_sec;
    now->tv_usec = fine.tv_nsec / 1000;
    return 0;
}
"""


def ahead(folder: Path, seconds: int) -> dict[str, str]:
    """The environment for processes whose clock is so far ahead; ``folder`` keeps the library."""
    library = folder / "clock.so"
    if not library.exists():
        subprocess.run(
            ["cc", "-O1", "-shared", "-fPIC", "-x", "c", "-", "-o", str(library), "-ldl"],
            input=_SOURCE.encode(), check=True,
        )  # fmt: skip
    return {"LD_PRELOAD": str(library), "LAB_CLOCK_AHEAD": str(seconds)}
