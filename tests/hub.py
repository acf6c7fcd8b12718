"""A small stand-in for the Hugging Face Hub: repositories in memory, over HTTP, for its client.

What it answers is what the client of `huggingface_hub` asks: repositories, commits with files in
them or in LFS, listings, downloads. Anything else is an error 501 that names what was asked.
"""

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

TOKEN = "hf_secret"


@dataclass
class Repository:
    """Commits and branches of one repository: commit -> path -> content."""

    private: bool = False
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)

    def commit(self, branch: str, changes: dict[str, bytes]) -> str:
        before = self.commits.get(self.branches.get(branch, ""), {})
        files = {**before, **changes}
        name = hashlib.sha1(repr((branch, len(self.commits), sorted(files))).encode()).hexdigest()
        self.commits[name] = files
        self.branches[branch] = name
        return name

    def resolve(self, revision: str) -> str | None:
        return self.branches.get(revision, revision if revision in self.commits else None)


class Hub:
    """What is stored, and every request that was made."""

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.large: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.url = ""


@contextmanager
def running_hub() -> Iterator[Hub]:
    hub = Hub()

    class Handler(_Handler):
        pass

    Handler.hub = hub
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *arguments: object) -> None:
        pass

    def do_GET(self) -> None:
        self._answer()

    do_HEAD = do_POST = do_PUT = do_GET

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.asked.append(f"{self.command} {path}")
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = path.strip("/").split("/")
        writes = self.command in ("POST", "PUT") and not path.startswith("/large/")
        if writes and self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self._send(401, {"error": "Invalid credentials"})
        elif parts[:2] == ["api", "repos"]:
            self._create(json.loads(body))
        elif parts[0] == "large":
            self.hub.large[parts[1]] = body
            self._send(200, {})
        elif parts[:2] == ["api", "validate-yaml"]:
            self._send(200, {"errors": [], "warnings": []})
        elif parts[:2] == ["api", "models"]:
            self._api("/".join(parts[2:4]), parts[4:], body)
        elif path.endswith(".git/info/lfs/objects/batch"):
            self._batch(json.loads(body))
        elif len(parts) > 3 and parts[2] == "resolve":
            self._file("/".join(parts[:2]), parts[3], "/".join(parts[4:]))
        else:
            self._send(501, {"error": f"nothing answers {self.command} {path}"})

    def _create(self, asked: dict[str, Any]) -> None:
        name = f"{asked.get('organization') or 'me'}/{asked['name']}"
        exists = name in self.hub.repositories
        private = asked.get("private") or asked.get("visibility") == "private"
        found = self.hub.repositories.setdefault(name, Repository(bool(private)))
        if not exists:
            found.commit("main", {".gitattributes": b"*.onnx filter=lfs"})
        self._send(409 if exists else 200, {"url": f"{self.hub.url}/{name}"})

    def _api(self, name: str, rest: list[str], body: bytes) -> None:
        found = self.hub.repositories.get(name)
        if found is None:
            self._send(404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
        elif rest[:1] == ["preupload"]:
            files = [
                {"path": f["path"], "shouldIgnore": False, "oid": None,
                 "uploadMode": "lfs" if f["path"].endswith((".onnx", ".npz")) else "regular"}
                for f in json.loads(body)["files"]
            ]  # fmt: skip
            self._send(200, {"files": files})
        elif rest[:1] == ["commit"]:
            commit = found.commit(rest[1], dict(_changes(body, self.hub.large)))
            url = f"{self.hub.url}/{name}/commit/{commit}"
            self._send(200, {"commitUrl": url, "commitOid": commit, "success": True})
        elif rest[:1] == ["branch"]:
            taken = rest[1] in found.branches
            found.branches.setdefault(rest[1], found.branches["main"])
            self._send(409 if taken else 200, {"error": "taken"} if taken else {})
        else:
            self._listing(name, found, rest)

    def _listing(self, name: str, found: Repository, rest: list[str]) -> None:
        commit = found.resolve(rest[1] if len(rest) > 1 else "main")
        if commit is None:
            self._send(404, {"error": "no revision"}, {"X-Error-Code": "RevisionNotFound"})
            return
        files = found.commits[commit]
        if rest[:1] == ["tree"]:
            self._send(200, [
                {"type": "file", "path": path, "size": len(content), "oid": _etag(content)}
                for path, content in files.items()
            ])  # fmt: skip
            return
        facts = {"id": name, "sha": commit, "private": found.private, "tags": []}
        self._send(200, {**facts, "siblings": [{"rfilename": path} for path in files]})

    def _batch(self, asked: dict[str, Any]) -> None:
        objects = [
            {"oid": each["oid"], "size": each["size"],
             "actions": {"upload": {"href": f"{self.hub.url}/large/{each['oid']}"}}}
            for each in asked["objects"]
        ]  # fmt: skip
        self._send(200, {"transfer": "basic", "objects": objects})

    def _file(self, name: str, revision: str, path: str) -> None:
        found = self.hub.repositories[name]
        commit = found.resolve(revision) or ""
        content = found.commits.get(commit, {}).get(path)
        if content is None:
            self._send(404, {"error": "no file"}, {"X-Error-Code": "EntryNotFound"})
            return
        facts = {"X-Repo-Commit": commit, "ETag": f'"{_etag(content)}"'}
        self._send(200, content, {**facts, "Content-Type": "application/octet-stream"})

    def _send(self, status: int, content: Any, headers: dict[str, str] | None = None) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for key, value in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def _etag(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()


def _changes(body: bytes, large: dict[str, bytes]) -> Iterator[tuple[str, bytes]]:
    """The files of a commit: one JSON object a line, as the client writes it."""
    for line in body.splitlines():
        entry = json.loads(line)
        value = entry["value"]
        if entry["key"] == "file":
            yield value["path"], base64.b64decode(value["content"])
        elif entry["key"] == "lfsFile":
            assert hashlib.sha256(large[value["oid"]]).hexdigest() == value["oid"]
            yield value["path"], large[value["oid"]]
