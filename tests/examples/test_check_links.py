"""Web addresses in the pages: found, well formed, and asked (of a server that the test starts)."""

from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from threading import Thread
from types import ModuleType

import pytest

_SCRIPT = Path(__file__).resolve().parents[2] / "examples" / "check_links.py"


@pytest.fixture(scope="module")
def check_links() -> ModuleType:
    spec = spec_from_file_location("check_links", _SCRIPT)
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def server() -> Iterator[str]:
    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(int(self.path[1:]))
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Answers) as running:
        Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()


def test_an_address_is_there_gone_or_not_known(check_links: ModuleType, server: str) -> None:
    answers = [check_links.answer(f"{server}/{code}") for code in (200, 404, 410, 403)]
    assert answers == ["ok", "gone: 404", "gone: 410", "not known: 403"]
    assert check_links.answer("http://127.0.0.1:1").startswith("not known: ")


def test_addresses_of_a_page_without_what_ends_a_sentence(
    check_links: ModuleType, tmp_path: Path
) -> None:
    (page := tmp_path / "a.md").write_text(
        "[a](https://a.org/b) and https://c.org/d. Not `http://127.0.0.1:8000`, https://e.org/…/f\n"
    )
    assert check_links.addresses([page]) == {"https://a.org/b": "a.md", "https://c.org/d": "a.md"}


def test_the_pages_have_addresses_and_all_are_encrypted(check_links: ModuleType) -> None:
    links = check_links.addresses(check_links.pages())
    assert len(links) > 10 and all(link.startswith("https://") for link in links)
