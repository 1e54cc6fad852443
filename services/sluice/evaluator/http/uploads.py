"""The path that takes data which lies with the client."""

from fastapi import APIRouter, Request

from sluice.evaluator.http.evaluations import Here
from sluice.evaluator.http.front import UPLOADS
from sluice.evaluator.http.multipart import file_of
from sluice.evaluator.http.views import UploadInfo

router = APIRouter(tags=["evaluations"])
_FILE = {"type": "string", "format": "binary"}
_BODY = {
    "required": True,
    "content": {
        "multipart/form-data": {"schema": {"type": "object", "properties": {"file": _FILE}, "required": ["file"]}},
        "application/octet-stream": {"schema": _FILE},
    },
}
_NAME = {
    "name": "name", "in": "query", "required": False, "schema": {"type": "string"}, "example": "data.csv",
    "description": "Of a file that is the body itself. Its ending says what it is: .npz, .csv, .jsonl or .parquet.",
}  # fmt: skip


@router.post(
    UPLOADS,
    status_code=201,
    summary="Upload data",
    openapi_extra={"requestBody": _BODY, "parameters": [_NAME]},
)
async def upload(service: Here, request: Request) -> UploadInfo:
    """Send a file, in a form or as the body. It is deleted with the last evaluation of it, or after a day without."""
    name, parts = await file_of(request)
    made = await service.receive(name, parts)
    return UploadInfo(upload=made.id, bytes=made.bytes, sha256=made.sha256)
