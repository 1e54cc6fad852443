"""Which files an evaluation may name, and that nobody learns what lies outside."""

import os
import pickle
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from sluice.data import File
from sluice.evaluator.roots import Roots, roots_of
from sluice.policy.errors import BackendUnavailable, BadRequest, SluiceError

NONE = "below the data roots; there is none"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """ROOT with a file, a folder of files and links out of it; beside it, files that are not to be read."""
    root = tmp_path / "root"
    (root / "many").mkdir(parents=True)
    for file in ("rows.csv", "many/b.csv", "many/a.jsonl", "many/notes.txt", "rows.txt"):
        (root / file).write_text("x\n1\n")
    (tmp_path / "secret.csv").write_text("x\n1\n")
    (tmp_path / "rootlike").mkdir()
    (tmp_path / "rootlike" / "rows.csv").write_text("x\n1\n")
    (root / "out.csv").symlink_to(tmp_path / "secret.csv")
    (root / "up").symlink_to(tmp_path)
    (root / "round.csv").symlink_to(root / "round.csv")
    (root / "in.csv").symlink_to(root / "many" / "b.csv")
    (root / "leads_out").mkdir()
    (root / "leads_out" / "a.csv").symlink_to(tmp_path / "secret.csv")
    os.mkfifo(root / "pipe.csv")
    return root


@pytest.fixture
def roots(folder: Path) -> Roots:
    return roots_of([str(folder)], ["file"])


def test_a_file_is_named_by_its_path_below_a_root_or_by_its_whole_path(folder: Path, roots: Roots) -> None:
    for path in ("rows.csv", "./many/../rows.csv", f"{folder}/rows.csv", f"file://{folder}/rows.csv"):
        [file] = roots.files(path)
        with pickle.loads(pickle.dumps(file)).open() as stream:
            assert stream.read() == b"x\n1\n"
        assert file.url == str(folder / "rows.csv")


def test_a_folder_is_its_files_of_rows_by_their_names(folder: Path, roots: Roots) -> None:
    wanted = [File("many/a.jsonl", str(folder / "many/a.jsonl")), File("many/b.csv", str(folder / "many/b.csv"))]
    assert roots.files("many") == wanted
    assert [file.url for file in roots.files("in.csv")] == [str(folder / "many/b.csv")]


OUTSIDE = {
    "steps up": "../secret.csv",
    "steps up and into another": "../rootlike/rows.csv",
    "a whole path": "/etc/passwd",
    "steps up to a file of the system": "../../../../../../../../etc/passwd",
    "a name that begins like the root's": "{root}like/rows.csv",
    "a link": "out.csv",
    "a folder that is a link": "up/secret.csv",
    "a link in the folder": "leads_out",
    "links in a circle": "round.csv",
    "a pipe": "pipe.csv",
    "a URL of a file": "file:///etc/passwd",
    "a URL of a file without slashes": "file:/etc/passwd",
    "a URL with a host": "file://localhost/etc/passwd",
    "percent signs": "%2e%2e/secret.csv",
    "a home": "~/rows.csv",
    "a name that is too long": "a" * 5000,
    "half of a surrogate pair": "\ud800.csv",
}


@pytest.mark.parametrize("case", OUTSIDE)
def test_what_lies_outside_is_refused_as_if_it_were_not_there(folder: Path, roots: Roots, case: str) -> None:
    path = OUTSIDE[case].format(root=folder)
    with pytest.raises(BadRequest, match=NONE) as there:
        roots.files(path)
    (folder.parent / "secret.csv").unlink()
    (folder.parent / "rootlike" / "rows.csv").unlink()
    with pytest.raises(BadRequest) as gone:
        roots.files(path)
    assert str(there.value) == str(gone.value)


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("rows.csv\0.txt", "without '::' and control characters"),
        ("rows.csv\n", "without '::' and control characters"),
        ("zip::s3://bucket/rows.zip", "without '::'"),
        ("simplecache::file:///etc/passwd", "without '::'"),
        ("http://127.0.0.1/rows.csv", "a URL that begins with file://; got 'http://127.0.0.1/rows.csv'"),
        ("https://example.org/rows.csv", "a URL that begins with file://"),
        ("s3://bucket/rows.csv", "a URL that begins with file://"),
        ("FILE:///etc/passwd", "a URL that begins with file://"),
        ("local:///etc/passwd", "a URL that begins with file://"),
        ("nothing.csv", NONE),
        ("rows.txt", r"expected a file that ends in \.npz, \.csv"),
    ],
)
def test_what_is_no_name_of_data_is_refused(roots: Roots, path: str, reason: str) -> None:
    with pytest.raises(BadRequest, match=reason):
        roots.files(path)


def test_without_roots_nothing_can_be_named(folder: Path) -> None:
    with pytest.raises(
        BadRequest, match=r"no data roots.*Upload the file .* --evaluations-data-roots DIR.* evaluator --data-roots DIR"
    ):
        roots_of([], ["file"]).files(str(folder / "rows.csv"))


@pytest.fixture
def store() -> Iterator[Roots]:
    """Below memory://bucket/data two files, and beside it one."""
    system = fsspec.filesystem("memory")
    for path in ("/bucket/data/a.csv", "/bucket/data/sub/b.csv", "/bucket/database/c.csv", "/bucket/data/d.txt"):
        system.pipe(path, b"x\n1\n")
    yield Roots((), ("memory://bucket/data",), ("memory",))
    system.rm("/bucket", recursive=True)


def test_a_store_is_read_below_its_root(store: Roots) -> None:
    for path in ("memory://bucket/data/a.csv", "a.csv"):
        [file] = store.files(path)
        with pickle.loads(pickle.dumps(file)).open() as stream:
            assert (stream.read(), file.url) == (b"x\n1\n", "memory://bucket/data/a.csv")
    assert [file.name for file in store.files("memory://bucket/data")] == ["memory://bucket/data/a.csv"]
    assert [file.url for file in store.files("sub")] == ["memory://bucket/data/sub/b.csv"]


@pytest.mark.parametrize(
    "path",
    [
        "memory://bucket/database/c.csv", "memory://bucket/data/../database/c.csv", "../database/c.csv", "memory://bucket",
        "memory://other/a.csv", "memory://bucket/data//a.csv", "/bucket/database/c.csv", "memory://bucket/data/none.csv",
    ],
)  # fmt: skip
def test_a_store_is_not_read_beside_its_root(store: Roots, path: str) -> None:
    with pytest.raises(BadRequest, match=NONE):
        store.files(path)


@pytest.mark.parametrize(
    ("error", "told", "sentence"),
    [
        (ConnectionResetError("reset"), BackendUnavailable, r"^a\.csv cannot be read now: reset\. Try again"),
        (PermissionError("Access Denied"), BadRequest, r"^a\.csv: expected a file of rows; Access Denied"),
    ],
)
def test_a_store_that_does_not_answer_is_no_bad_request(
    store: Roots, monkeypatch: pytest.MonkeyPatch, error: Exception, told: type[SluiceError], sentence: str
) -> None:
    def refuse(*_: object) -> None:
        raise error

    monkeypatch.setattr(type(fsspec.filesystem("memory")), "info", refuse)
    with pytest.raises(told, match=sentence):
        store.files("a.csv")


@pytest.mark.parametrize(
    ("names", "protocols", "reason"),
    [
        (["{}/none"], ["file"], "expected a folder; there is no folder"),
        (["{}/rows.csv"], ["file"], "expected a folder; .* is a file"),
        (["s3://bucket"], ["file"], "expected one of the protocols file; got 's3://bucket'"),
        (["{}"], ["s3"], "expected one of the protocols s3"),
        (["{}"], ["file", "http"], "expected some of file, s3, gs; got 'http'"),
        (["s3://bucket/../x"], ["s3"], "expected a URL such as s3://bucket/folder"),
        (["s3://"], ["s3"], "expected a URL such as s3://bucket/folder"),
    ],
)
def test_roots_that_cannot_be_used_are_told_at_the_start(
    folder: Path, names: list[str], protocols: list[str], reason: str
) -> None:
    with pytest.raises(ValueError, match=reason):
        roots_of([name.format(folder) for name in names], protocols)


def test_a_folder_that_may_not_be_looked_at_is_none(
    folder: Path, roots: Roots, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(path: Path) -> Iterator[Path]:
        raise PermissionError(path)

    monkeypatch.setattr(Path, "iterdir", refused)
    with pytest.raises(BadRequest, match=NONE):
        roots.files("many")


def test_a_link_may_lead_from_root_to_root(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "rootlike"
    (folder / "store.csv").symlink_to(other / "rows.csv")
    with pytest.raises(BadRequest, match=NONE):
        roots_of([str(folder)], ["file"]).files("store.csv")
    [file] = roots_of([str(folder), str(other)], ["file"]).files("store.csv")
    assert (file.name, file.url) == ("store.csv", str(other / "rows.csv"))


def test_the_links_of_a_root_itself_are_followed_once(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(folder)
    roots = roots_of([str(tmp_path / "link")], ["file"])
    assert [file.url for file in roots.files("rows.csv")] == [str(folder / "rows.csv")]
