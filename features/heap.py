"""Keeps freed memory in a process that asks for the same few megabytes again and again.

glibc gives what is freed at the end of its heap back to the system above a threshold; the next frame then pays for every page
of it anew. One process that decodes 1080p spends a third of its time on that. Elsewhere than on glibc nothing is changed.
"""

import ctypes

# glibc's malloc.h: M_TRIM_THRESHOLD, M_MMAP_THRESHOLD. Its limit for the second is 32 MiB; RGB of 4K is 24 MiB.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8
KEPT_BYTES = 256 << 20
MMAP_BYTES = 32 << 20


def keep_freed_memory() -> bool:
    """For this process from now on; says whether there is a glibc to be told. Up to `KEPT_BYTES` stay with the process."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    return bool(mallopt(_MMAP_THRESHOLD, MMAP_BYTES) and mallopt(_TRIM_THRESHOLD, KEPT_BYTES))


def share_one_heap() -> bool:
    """All threads of this process allocate from one heap; to be called before there are any. Says whether there is a glibc.

    Buffers that one thread makes and another frees leave holes in a heap per thread: with eight of them the memory of an
    extraction grew by 100 MB in its first minutes.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    return bool(mallopt(_ARENA_MAX, 1))
