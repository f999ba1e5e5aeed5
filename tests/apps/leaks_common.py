"""What a process holds, as JSON; behind a garbage collection."""

import ctypes
import gc
import json
import sys

END = b"<<end>>"


class _Mallinfo2(ctypes.Structure):
    """malloc.h"""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            "arena", "ordblks", "smblks", "hblks", "hblkhd",
            "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost",
        )
    ]  # fmt: skip


_mallinfo2 = ctypes.CDLL(None).mallinfo2
_mallinfo2.restype = _Mallinfo2


def counts():
    gc.collect()
    gc.collect()
    heap = _mallinfo2()
    return json.dumps(
        {
            "blocks": sys.getallocatedblocks(),
            "objects": len(gc.get_objects()),
            "heap": heap.uordblks + heap.hblkhd,
        }
    ).encode()
