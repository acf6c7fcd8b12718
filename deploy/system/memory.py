"""What glibc keeps of memory that this process no longer needs; elsewhere nothing is done."""

from contextlib import suppress

from resdeploy.deploy.system.processes import c_library

_M_ARENA_MAX = -8  # malloc.h


def return_freed_memory() -> None:
    """Give what was freed back to the system: glibc keeps it, in pieces of little use to others."""
    with suppress(OSError, AttributeError):  # another C library
        c_library().malloc_trim(0)


def limit_arenas(count: int) -> None:
    """Let glibc keep at most so many heaps, for a process of many threads that lasts.

    It would take eight for each core, and each keeps what once was its most.
    """
    with suppress(OSError, AttributeError):  # another C library
        c_library().mallopt(_M_ARENA_MAX, count)
