"""Why a request gets no answer: one table of reasons, with what each means in HTTP and gRPC."""

from typing import Literal, NamedTuple

from resdeploy.deploy.errors import ResdeployError, shown

Reason = Literal[
    "malformed",
    "not_an_image",
    "unauthorized",
    "foreign_page",
    "unknown_model",
    "unknown_path",
    "wrong_method",
    "too_slow",
    "too_large",
    "headers_too_large",
    "failed_check",
    "inference_failed",
    "internal",
    "overloaded",
    "not_ready",
    "timeout",
    "client_left",
]


class Codes(NamedTuple):
    """The HTTP status of a reason and the name of its gRPC status code."""

    http: int
    grpc: str


CODES: dict[Reason, Codes] = {
    "malformed": Codes(400, "INVALID_ARGUMENT"),
    "not_an_image": Codes(400, "INVALID_ARGUMENT"),
    "unauthorized": Codes(401, "UNAUTHENTICATED"),
    "foreign_page": Codes(403, "PERMISSION_DENIED"),
    "unknown_model": Codes(404, "NOT_FOUND"),
    "unknown_path": Codes(404, "UNIMPLEMENTED"),
    "wrong_method": Codes(405, "UNIMPLEMENTED"),
    "too_slow": Codes(408, "DEADLINE_EXCEEDED"),
    "too_large": Codes(413, "RESOURCE_EXHAUSTED"),
    "headers_too_large": Codes(431, "RESOURCE_EXHAUSTED"),
    "failed_check": Codes(422, "FAILED_PRECONDITION"),
    "inference_failed": Codes(500, "INTERNAL"),
    "internal": Codes(500, "INTERNAL"),
    "overloaded": Codes(503, "UNAVAILABLE"),
    "not_ready": Codes(503, "UNAVAILABLE"),
    "timeout": Codes(504, "DEADLINE_EXCEEDED"),
    # nobody reads this status; 499 is what proxies write in their logs
    "client_left": Codes(499, "CANCELLED"),
}


class Refusal(ResdeployError):
    """A request that is not answered; `retry_after_s` says when another try may succeed."""

    def __init__(self, reason: Reason, message: str, *, retry_after_s: int | None = None) -> None:
        super().__init__(shown(message))  # it may hold what the client sent
        self.reason: Reason = reason
        self.retry_after_s = retry_after_s
