"""What goes wrong over HTTP, in OpenAI's shape: {"error": {message, type, param, code}}."""

from typing import Any

from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse

from windtunnel.errors import InputError
from windtunnel.inference.engine import QueueFull
from windtunnel.serving.worker import Stopped

_RETRY = "1"  # seconds
_KINDS = ("str", "int", "float", "bool")  # pydantic's names of a union's alternatives, which stand in its paths


class Fault(Exception):
    """An answer that is not 200."""

    def __init__(
        self, status: int, message: str, code: str, param: str | None = None, headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.code, self.param, self.headers = status, message, code, param, headers

    @property
    def body(self) -> dict[str, Any]:
        """The error object."""
        kinds = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
        kind = "server_error" if self.status >= 500 else kinds.get(self.status, "invalid_request_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    @property
    def response(self) -> JSONResponse:
        """The same as an answer."""
        return JSONResponse(self.body, self.status, headers=self.headers)


def fault_of(error: Exception) -> Fault:
    """What an error is to the client. What is not its doing says nothing of the inside."""
    if isinstance(error, Fault):
        return error
    if isinstance(error, QueueFull):
        return Fault(429, str(error), "queue_full", headers={"Retry-After": _RETRY})
    if isinstance(error, Stopped):
        return Fault(503, str(error), "stopping", headers={"Retry-After": _RETRY})
    if isinstance(error, InputError):
        name, colon, rest = str(error).partition(": ")
        if colon and name[:1].isupper():  # a spec names itself first
            return Fault(400, rest, "invalid_value")
        return Fault(400, str(error), "invalid_value", name if colon and name.isidentifier() else None)
    if isinstance(error, RequestValidationError):
        return _invalid(error)
    if isinstance(error, HTTPException):
        codes = {404: "not_found", 405: "method_not_allowed"}
        return Fault(error.status_code, str(error.detail), codes.get(error.status_code, "bad_request"))
    return Fault(500, "the server failed at this request; its log says where", "internal_error")


async def answer_fault(request: Request, error: Exception) -> JSONResponse:
    """The handler of every exception."""
    fault = fault_of(error)
    if isinstance(error, HTTPException) and error.headers:
        fault.headers = dict(error.headers)
    return fault.response


def _invalid(error: RequestValidationError) -> Fault:
    """What is wrong first, named by its path; of a union's alternatives the one that came nearest."""
    found = max(error.errors(), key=lambda each: (not each["type"].endswith("_type"), len(each["loc"])))
    if found["type"] == "json_invalid":
        reason = found.get("ctx", {}).get("error", found["msg"])
        return Fault(400, f"the body is not JSON: {reason}", "invalid_json")
    parts = [str(part) for part in found["loc"][1:] if part not in _KINDS]
    path = ".".join(part for part in parts if part.isidentifier() or part.isdecimal())
    message = found["msg"][:1].lower() + found["msg"][1:]
    return Fault(400, f"{path or 'body'}: {message}", found["type"], path or None)
