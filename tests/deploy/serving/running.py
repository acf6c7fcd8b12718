"""A server in a process of its own, as it is in the field, and a client without any library."""

import http.client
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

WAIT_S = 60.0

_PROGRAM = """
import json, sys
from pathlib import Path
from resdeploy.deploy.serving.limits import Limits
from resdeploy.deploy.serving.batching import BatchRules
from resdeploy.deploy.serving.repository import sources
from resdeploy.deploy.serving.server import ServerOptions, serve
given = json.loads(sys.argv[1])
options = given["options"]
for key in ("token_file", "tls_cert", "tls_key"):
    if key in options:
        options[key] = Path(options[key])
options = ServerOptions(
    port=0, rules=BatchRules(**given["rules"]), limits=Limits(**given["limits"]), **options
)
found = sources([Path(path) for path in given["paths"]], given["precisions"])
say = lambda text: print(text, file=sys.stderr, flush=True)
serve(found, options, notify=say, log=sys.stdout)
"""


@dataclass(frozen=True)
class Reply:
    """An HTTP answer."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Running:
    """A server's process and where it listens."""

    process: "subprocess.Popen[str]"
    port: int
    grpc_port: int
    log: IO[str]

    def ask(
        self,
        method: str,
        path: str,
        body: bytes | str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=WAIT_S)
        try:
            connection.request(method, path, body, dict(headers or {}))
            response = connection.getresponse()
            names = {name.lower(): value for name, value in response.getheaders()}
            return Reply(response.status, names, response.read())
        finally:
            connection.close()

    def get(self, path: str) -> Reply:
        return self.ask("GET", path)

    def post(self, path: str, content: Any) -> Reply:
        return self.ask("POST", path, json.dumps(content))

    def stop(self) -> tuple[int, list[dict[str, Any]]]:
        """SIGTERM; the exit status and the access log."""
        self.process.send_signal(signal.SIGTERM)
        status = self.process.wait(WAIT_S)
        self.log.seek(0)
        return status, [json.loads(line) for line in self.log]


@contextmanager
def running(
    paths: Sequence[Path],
    *,
    rules: Mapping[str, Any] | None = None,
    limits: Mapping[str, Any] | None = None,
    precisions: Sequence[str] = (),
    ready: int = 1,
    **options: Any,
) -> Iterator[Running]:
    """Serve `paths` on free ports; yields once `ready` models are said to be ready."""
    options.setdefault("grpc_port", None)
    given = {
        "paths": [str(path) for path in paths],
        "rules": {"max_wait_s": 0.0, **(rules or {})},
        "limits": limits or {},
        "precisions": precisions,
        "options": options,
    }
    with tempfile.TemporaryFile("w+", encoding="utf-8") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM, json.dumps(given)],
            stdout=log,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        try:
            http_port, grpc_port = _ports(process, ready)
            yield Running(process, http_port, grpc_port, log)
        finally:
            if process.poll() is None:
                process.kill()
            process.communicate()


def _ports(process: "subprocess.Popen[str]", ready: int) -> tuple[int, int]:
    timer = threading.Timer(WAIT_S, process.kill)  # reading below would wait for ever
    timer.start()
    ports = {"http": 0, "grpc": 0}
    seen: list[str] = []
    assert process.stderr is not None
    while ready:
        line = process.stderr.readline()
        assert line, f"the server ended: {''.join(seen)}"
        seen.append(line)
        if line.startswith("listening on "):
            for address in line.removeprefix("listening on ").split(" and "):
                scheme, _, rest = address.strip().partition("://")
                ports[scheme.removesuffix("s")] = int(rest.rpartition(":")[2])
        ready -= line.startswith("ready: ")
    timer.cancel()
    return ports["http"], ports["grpc"]
