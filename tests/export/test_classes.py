"""Models with classes of their own: by the command line as a stranger would, and what is said if one is missing."""

import runpy
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers

from sluice.export import ExportError, export, export_file
from sluice.export.imports import import_classes, load

STRANGER = '''
"""A cell of one's own with a list of states, in a file of its own, and a script that saves a model with it."""

import sys

import keras
from keras import layers, ops

from rates import RATE


@keras.saving.register_keras_serializable("stranger")
class LeakyCell(layers.Layer):
    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.state_size = [units, 1]

    def build(self, input_shape):
        self.kernel = self.add_weight(shape=(input_shape[-1], self.units), name="kernel")
        self.built = True

    def call(self, inputs, states):
        level, count = states
        level = RATE * level + ops.matmul(inputs, self.kernel) / (count + 1)
        return level, [level, count + 1]

    def get_config(self):
        return super().get_config() | {"units": self.units}


if __name__ == "__main__":
    rnn = layers.RNN(LeakyCell(4), return_sequences=True, name="leaky")
    keras.Sequential([keras.Input((None, 3), name="readings"), rnn, layers.Dense(1, name="risk")]).save(sys.argv[1])
'''


@pytest.fixture(scope="module")
def stranger(tmp_path_factory) -> Path:
    """A folder with the stranger's code, and the model that it saved."""
    folder = tmp_path_factory.mktemp("stranger")
    (folder / "leaky.py").write_text(STRANGER, encoding="utf-8")
    (folder / "rates.py").write_text("RATE = 0.75\n", encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["leaky.py", str(folder / "leaky.keras")])
        patch.syspath_prepend(folder)
        runpy.run_path(str(folder / "leaky.py"), run_name="__main__")
    del sys.modules["rates"]
    return folder


def sluice(*args: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [Path(sys.executable).parent / "sluice", *map(str, args)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)


def test_a_stranger_s_cell_is_exported_by_the_command_line(stranger, tmp_path, serve):
    out = tmp_path / "leaky" / "1"
    done = sluice("export", stranger / "leaky.keras", "--out", out, "--import", stranger / "leaky.py", cwd=tmp_path)
    assert (done.returncode, done.stdout.strip()) == (0, str(out)), done.stderr
    import_classes([str(stranger / "leaky.py")])
    expected = np.asarray(load(stranger / "leaky.keras")(x := np.random.default_rng(0).normal(size=(2, 5, 3))))
    served = serve(out)
    states = {"leaky/state_0": np.zeros((2, 4)), "leaky/state_1": np.zeros((2, 1))}
    for t in range(5):
        answer = served.call("step", {"readings": x[:, t]} | states)
        np.testing.assert_allclose(answer["risk"], expected[:, t], atol=1e-6)
        states = {name: answer[name] for name in states}


def test_a_module_of_the_current_folder_can_be_named_and_a_missing_class_is_named(stranger, tmp_path):
    export_it = ("export", "leaky.keras", "--out", tmp_path / "leaky" / "1")
    done = sluice(*export_it, "--import", "rates", cwd=stranger)
    assert done.returncode == 1
    assert "class 'LeakyCell' is not known to Keras" in done.stderr
    assert "--import MODULE_OR_FILE.py" in done.stderr
    assert not (tmp_path / "leaky").exists()


@pytest.mark.parametrize(
    ("name", "error"), [("no.such.module", "No module named 'no'"), ("no_such_file.py", "No such file")]
)
def test_what_cannot_be_imported_is_named(name, error, tmp_path):
    with pytest.raises(ExportError, match=rf"--import {name}: expected a module or a .py file.*{error}"):
        export_file(tmp_path / "model.keras", tmp_path / "model" / "1", imports=[name])


def test_code_that_fails_when_it_is_imported_is_named_with_its_error(tmp_path):
    file = tmp_path / "broken.py"
    file.write_text("1 / 0", encoding="utf-8")
    with pytest.raises(ExportError, match=r"broken\.py: .*ZeroDivisionError"):
        import_classes([str(file)])


def test_a_file_named_as_a_module_that_is_there_does_not_take_its_place(tmp_path):
    file = tmp_path / "keras.py"
    file.write_text("MINE = True", encoding="utf-8")
    import_classes([str(file)])
    assert sys.modules["keras"] is keras
    assert sys.modules.pop("imported_keras").MINE


class Plain(layers.Layer):
    def call(self, x):
        return x


@pytest.mark.parametrize(
    ("build", "said"),
    [
        (keras.ops.tanh, "'Tanh' is called, an operation that is no layer; save the model as a .keras"),
        (Plain(), "class 'Plain' is not known to Keras; decorate it"),
    ],
)
def test_an_older_file_says_why_it_cannot_be_read(build, said, tmp_path):
    entry = keras.Input((None, 4))
    file = tmp_path / "model.h5"
    keras.Model(entry, build(entry)).save(file)
    with pytest.raises(ExportError, match=said):
        export_file(file, tmp_path / "model" / "1")


class Unregistered(layers.SimpleRNNCell):
    """A cell that only this process knows."""


def test_a_model_in_memory_needs_no_registered_classes(tmp_path, quick_verification):
    model = keras.Sequential([keras.Input((None, 3)), layers.RNN(Unregistered(4), return_sequences=True)])
    assert (export(model, tmp_path / "1") / "saved_model.pb").exists()
