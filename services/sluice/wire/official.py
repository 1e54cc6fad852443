"""Messages and services under the names that they have on the wire, for tools that ask a server about itself.

Ours are generated in packages of our own, because a second definition inside the official ones would collide with them
in one process.
"""

from collections.abc import Iterable, Iterator
from functools import cache

from google.protobuf import text_format
from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool

# Package of ours → what it is called on the wire.
PACKAGES = {"sluice.tf.v1": "tensorflow", "sluice.tfs.v1": "tensorflow.serving", "sluice.oip.v1": "inference"}


def official_name(name: str) -> str:
    """What a message or service of ours is called on the wire, by its full name."""
    package, _, last = name.rpartition(".")
    return f"{PACKAGES.get(package, package)}.{last}"


def official_pool(files: Iterable[FileDescriptor]) -> DescriptorPool:
    """These files and all that they import, each under its official package."""
    pool, added = DescriptorPool(), set()
    for each in (needed for file in files for needed in _with_imports(file)):
        if each.name not in added:
            added.add(each.name)
            pool.Add(_renamed(each))
    return pool


def _with_imports(file: FileDescriptor) -> Iterator[FileDescriptor]:
    for each in file.dependencies:
        yield from _with_imports(each)
    yield file


@cache
def _renamed(file: FileDescriptor) -> FileDescriptorProto:
    described = FileDescriptorProto()
    file.CopyToProto(described)
    if file.package not in PACKAGES:
        return described
    text = text_format.MessageToString(described)
    for ours, theirs in PACKAGES.items():
        text = text.replace(ours, theirs)
    return text_format.Parse(text, FileDescriptorProto())
