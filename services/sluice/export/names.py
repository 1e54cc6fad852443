"""Gives TensorFlow's graphs names that they take. Keras allows more, and a model's clients keep Keras's."""

import keyword
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any

import keras
from keras.src import backend

_LEGAL = re.compile(r"[A-Za-z0-9.][A-Za-z0-9_.>/-]*")
_OTHER = re.compile(r"[^A-Za-z0-9_.>/-]")


def legal(name: str) -> str:
    """`name`, or one like it that a graph takes as the name of a scope or of a signature's argument."""
    is_legal = _LEGAL.fullmatch(name) and not keyword.iskeyword(name) and name != "self"
    return name if is_legal else f"named_{_OTHER.sub('_', name)}"


def unused_name(name: str, taken: set[str]) -> str:
    """`name`, or with the first suffix _1, _2, … that is not `taken`; it is taken afterwards."""
    candidates = (name if i == 0 else f"{name}_{i}" for i in count())
    chosen = next(candidate for candidate in candidates if candidate not in taken)
    taken.add(chosen)
    return chosen


@contextmanager
def legal_scopes(model: keras.Model) -> Iterator[None]:
    """A layer's scope in a graph has its name, and where that cannot be, one like it."""
    illegal = [layer for layer in model._flatten_layers() if legal(layer.name) != layer.name]
    for layer in illegal:
        _scope(layer, legal(layer.name))
    try:
        yield
    finally:
        for layer in illegal:
            layer.__dict__.pop("_open_name_scope", None)


@contextmanager
def legal_variables(variables: Iterable[Any]) -> Iterator[None]:
    """TensorFlow's variables, whose names begin with their layers', can be written into a graph."""
    before = [(variable, variable._handle_name) for variable in variables]
    for variable, name in before:
        variable._handle_name = f"{legal(name.removesuffix(':0'))}:0"
    try:
        yield
    finally:
        for variable, name in before:
            variable._handle_name = name


def _scope(layer: Any, name: str) -> None:
    vars(layer)["_open_name_scope"] = lambda: backend.name_scope(name, caller=layer)
