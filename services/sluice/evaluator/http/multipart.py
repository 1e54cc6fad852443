"""The file of a request, as `multipart/form-data` or as the body itself, part by part as it comes."""

from collections.abc import AsyncIterator
from pathlib import PurePosixPath

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request

from sluice.policy.errors import BadRequest

_HOW = "Send one file: curl -F file=@data.csv, or curl -T data.csv with ?name=data.csv."
_HEAD_BYTES = 16 * 1024  # of all that comes ahead of the file's content
_NAME_LENGTH = 255


async def file_of(request: Request) -> tuple[str, AsyncIterator[bytes]]:
    """Its name, and its content, which raises BadRequest where the body is not whole.

    Raises:
        BadRequest: there is no file, or it has no name.
    """
    kind, options = parse_options_header(request.headers.get("content-type"))
    stream = request.stream()
    if kind != b"multipart/form-data":
        return _checked(request.query_params.get("name", "")), stream
    form = _Form(options.get(b"boundary", b""))
    came = 0
    while form.name is None:
        part = await anext(stream, b"")
        came += len(part)
        if not part or came > _HEAD_BYTES + len(part):
            raise BadRequest(f"There is no file in the form. {_HOW}")
        form.feed(part)
    return _checked(form.name), _content(form, stream)


async def _content(form: "_Form", stream: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield form.take()
    async for part in stream:
        form.feed(part)
        yield form.take()
    if not form.ended:
        raise BadRequest(f"The form ends in the middle of the file. {_HOW}")


def _checked(name: str) -> str:
    name = PurePosixPath(name.replace("\\", "/")).name
    if not name.strip(".") or len(name) > _NAME_LENGTH or not name.isprintable():
        raise BadRequest(f"The file has no name that can be used, such as data.csv; got {name!r:.80}. {_HOW}")
    return name


class _Form:
    """A form as it comes, of which the first field that is a file is wanted."""

    def __init__(self, boundary: bytes) -> None:
        self.name: str | None = None
        self.ended = False  # the file is whole
        self._field, self._value = b"", b""
        self._data: list[bytes] = []
        try:
            if not boundary:
                raise FormParserError("it is missing")
            self._parser = MultipartParser(
                boundary,
                {
                    "on_header_field": self._on_field,
                    "on_header_value": self._on_value,
                    "on_header_end": self._on_header,
                    "on_part_data": self._on_data,
                    "on_part_end": self._on_end,
                },
            )
        except FormParserError as error:
            raise BadRequest(f"The form's boundary cannot be used: {error}. {_HOW}") from None

    def feed(self, part: bytes) -> None:
        """Raises: BadRequest: it is not well formed."""
        try:
            self._parser.write(part)
        except FormParserError as error:
            raise BadRequest(f"The form cannot be read: {error}. {_HOW}") from None

    def take(self) -> bytes:
        """What has come of the file's content since the last call."""
        data, self._data = b"".join(self._data), []
        return data

    def _on_field(self, data: bytes, start: int, end: int) -> None:
        self._field += data[start:end]

    def _on_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _on_header(self) -> None:
        _, options = parse_options_header(self._value)
        if self._field.lower() == b"content-disposition" and b"filename" in options:
            if self.name is not None:
                raise BadRequest(f"There are several files in the form. {_HOW}")
            self.name = options[b"filename"].decode(errors="replace")
        self._field, self._value = b"", b""

    def _on_data(self, data: bytes, start: int, end: int) -> None:
        if self.name is not None and not self.ended:
            self._data.append(data[start:end])

    def _on_end(self) -> None:
        self.ended = self.name is not None
