"""How processes keep memory: what one large message has used serves the next one.

Imported by the entry points of processes.
"""

import ctypes

_MAPPED_FROM = 4 * 1024 * 1024  # bytes of one allocation; larger ones are given back as soon as they are freed
_KEPT = 4 * _MAPPED_FROM  # bytes that the C library may keep at the end of its heap
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # glibc's numbers


def keep_freed_memory() -> None:
    """Have the C library keep a few freed megabytes. Where it is not glibc nothing happens.

    By itself it gives the memory of each message of a megabyte back to the system and asks for it again, page by page,
    which takes longer than copying the message.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _MAPPED_FROM)
        mallopt(_M_TRIM_THRESHOLD, _KEPT)
