"""What a request and a connection may cost."""

from dataclasses import dataclass

from resdeploy.deploy.serving.refusal import Refusal


@dataclass(frozen=True)
class Limits:
    """What a request may cost; the same for every protocol.

    Attributes:
        body_bytes: of one request.
        bodies_bytes: of all requests that are being answered over HTTP.
        header_bytes: of one request, its first line included.
        pixels: of one image before it is decoded.
        requests: answered at the same time; more are refused.
        connections: open at the same time.
        arrival_s: within which headers, and then the body, have come.
        idle_s: until a silent connection is closed.
        answer_s: until a request that does not set a timeout is given up.
    """

    body_bytes: int = 32 << 20
    bodies_bytes: int = 256 << 20
    header_bytes: int = 16 << 10
    pixels: int = 40_000_000
    requests: int = 256
    connections: int = 800
    arrival_s: float = 30.0
    idle_s: float = 30.0
    answer_s: float = 30.0


class Bodies:
    """Counts the memory that request bodies hold together; used on the event loop only."""

    def __init__(self, limit_bytes: int) -> None:
        """Hold at most `limit_bytes`."""
        self._limit_bytes = limit_bytes
        self._held_bytes = 0

    def take(self, size: int) -> None:
        """Count `size` bytes more.

        Raises:
            Refusal: overloaded.
        """
        if self._held_bytes + size > self._limit_bytes:
            raise Refusal(
                "overloaded",
                f"the bodies of all requests take {self._held_bytes} bytes, limit: "
                f"{self._limit_bytes}: try again later",
                retry_after_s=1,
            )
        self._held_bytes += size

    def give_back(self, size: int) -> None:
        """Count `size` bytes less."""
        self._held_bytes -= size
