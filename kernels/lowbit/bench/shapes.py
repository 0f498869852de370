"""The linear layers of LLaMA-3, [out, in], with query, key and value fused and not, and gate and up."""

from __future__ import annotations

ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 1024, 4096)

SHAPES: dict[str, dict[str, tuple[int, int]]] = {
    "1b": {
        "q,o": (2048, 2048),
        "k,v": (512, 2048),
        "qkv": (3072, 2048),
        "gate,up": (8192, 2048),
        "gate+up": (16384, 2048),
        "down": (2048, 8192),
    },
    "3b": {
        "q,o": (3072, 3072),
        "k,v": (1024, 3072),
        "qkv": (5120, 3072),
        "gate,up": (8192, 3072),
        "gate+up": (16384, 3072),
        "down": (3072, 8192),
    },
    "8b": {
        "q,o": (4096, 4096),
        "k,v": (1024, 4096),
        "qkv": (6144, 4096),
        "gate,up": (14336, 4096),
        "gate+up": (28672, 4096),
        "down": (4096, 14336),
    },
    "70b": {
        "q,o": (8192, 8192),
        "k,v": (1024, 8192),
        "qkv": (10240, 8192),
        "gate,up": (28672, 8192),
        "gate+up": (57344, 8192),
        "down": (8192, 28672),
    },
}
