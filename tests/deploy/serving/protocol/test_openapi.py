"""The description names every route that there is, and refers to nothing that it lacks."""

import json
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from resdeploy.deploy.serving.answer import Service
from resdeploy.deploy.serving.protocol.openapi import openapi
from resdeploy.deploy.serving.web.classify import v1_routes
from resdeploy.deploy.serving.web.operations import operations_routes
from resdeploy.deploy.serving.web.v2 import v2_routes
from tests.deploy.serving.running import running


def _values(content: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(content, dict):
        yield from content.items()
    for value in content.values() if isinstance(content, dict) else content:
        if isinstance(value, dict | list):
            yield from _values(value)


def test_every_reference_is_resolved_and_every_part_is_used() -> None:
    description = json.loads(json.dumps(openapi()))
    used = {value for key, value in _values(description) if key == "$ref"}
    held = {f"#/components/schemas/{name}" for name in description["components"]["schemas"]}
    assert used == held


def test_a_path_declares_each_of_its_parameters() -> None:
    for path, methods in openapi()["paths"].items():
        for operation in methods.values():
            declared = operation.get("parameters", [])
            inside = [one["name"] for one in declared if one["in"] == "path"]
            assert inside == re.findall(r"{(\w+)}", path), path
            assert {"4XX", "5XX"} < operation["responses"].keys()


def test_its_paths_are_those_that_the_server_has(make_service: Callable[..., Service]) -> None:
    described = {
        (path, method.upper()) for path, methods in openapi()["paths"].items() for method in methods
    }
    service = make_service([])
    routes = [*operations_routes(service), *v1_routes(service), *v2_routes(service)]
    served = {
        (route.path, method) for route in routes for method in (route.methods or set()) - {"HEAD"}
    }
    assert served == described


@pytest.mark.slow
def test_whatever_it_allows_or_forbids_is_answered_as_it_says(
    tmp_path: Path, colours_bundle: Path
) -> None:
    if shutil.which("schemathesis") is None:
        pytest.skip("no schemathesis here: pip install schemathesis")
    # names that exist, so that requests come further than to a 404
    (tmp_path / "schemathesis.toml").write_text('[parameters]\nmodel = "colours"\nversion = "1"\n')
    checks = "not_a_server_error,status_code_conformance,response_schema_conformance"
    words = ["--checks", checks, "--phases", "fuzzing", "-n", "5", "--seed", "1"]
    with running([colours_bundle]) as server:
        url = f"http://127.0.0.1:{server.port}/openapi.json"
        # an unloaded model rightly answers 503
        asking = ["schemathesis", "run", url, "--exclude-path-regex", "unload$", *words]
        found = subprocess.run(asking, cwd=tmp_path, capture_output=True, text=True)
    assert found.returncode == 0, found.stdout
