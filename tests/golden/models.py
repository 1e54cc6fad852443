"""The models of the recorded answers, built again."""

from pathlib import Path
from typing import Any

import tensorflow as tf

from tests.model_server import zoo

VERSIONS = (1, 2, 5)
LABELS = {"stable": 2, "my label": 5}
_WIDTH = 256
_OWN = {"echo_one", "halved", "forgotten", "looked_up"}  # of tests of ours


def save(root: Path) -> Path:
    """Write zoo 1, 2, 5, nodefault 1 and lstm256 1 below `root`, and the configuration file, which is returned."""
    for version in VERSIONS:
        zoo.save(root / "zoo" / str(version), lambda scale=version: _zoo(scale))
    zoo.save(root / "nodefault" / "1", zoo.nodefault)
    zoo.save(root / "lstm256" / "1", _lstm)
    labels = "".join(f"version_labels {{ key: '{label}' value: {version} }} " for label, version in LABELS.items())
    file = root / "models.config"
    file.write_text(
        "model_config_list {"
        f"config {{ name: 'zoo' base_path: '{root}/zoo' model_platform: 'tensorflow' "
        f"model_version_policy {{ all {{}} }} {labels} }}"
        f"config {{ name: 'nodefault' base_path: '{root}/nodefault' model_platform: 'tensorflow' }}"
        f"config {{ name: 'lstm256' base_path: '{root}/lstm256' model_platform: 'tensorflow' }} }}"
    )
    return file


def _zoo(scale: int) -> zoo.Signatures:
    return {name: tensors for name, tensors in zoo.zoo(scale).items() if name not in _OWN}


def _lstm() -> zoo.Signatures:
    """One step of an LSTM cell of any weights; the signature is `step`."""
    x, h, c = (_rows(name, width) for name, width in [("x", 1), ("h", _WIDTH), ("c", _WIDTH)])
    gates = tf.matmul(tf.concat([x, h], 1), tf.fill([1 + _WIDTH, 4 * _WIDTH], 0.01))
    i, f, g, o = tf.split(gates, 4, 1)
    new_c = tf.sigmoid(f) * c + tf.sigmoid(i) * tf.tanh(g)
    new_h = tf.sigmoid(o) * tf.tanh(new_c)
    y = tf.reduce_mean(new_h, 1, keepdims=True)
    return {"step": ({"x": x, "h": h, "c": c}, {"y": y, "h": new_h, "c": new_c})}


def _rows(name: str, width: int) -> Any:
    return tf.compat.v1.placeholder(tf.float32, [None, width], name)
