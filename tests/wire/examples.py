"""Values of every dtype, and what it means that two arrays are the same."""

import numpy as np

from sluice.policy.contract import numpy_dtype


def values(name: str) -> np.ndarray:
    """Six values of a dtype, at its limits where it has any."""
    dtype = numpy_dtype(name)
    if name == "string":
        return np.array([b"", b"a", b"\xff\x00", "h\u00e9".encode(), b"x" * 300, b"\n"], object)
    if name == "bool":
        return np.array([0, 1, 1, 0, 1, 0], bool)
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        return np.array([limits.min, limits.max, 0, 1, 2, 100], dtype)
    return np.array([0.0, -0.0, 1.5, np.nan, np.inf, -np.inf]).astype(dtype)


def same(got: np.ndarray, wanted: np.ndarray) -> None:
    assert (got.dtype, got.shape) == (wanted.dtype, wanted.shape)
    if wanted.dtype.hasobject:
        assert got.tolist() == wanted.tolist()
    else:
        assert got.tobytes() == wanted.tobytes()
