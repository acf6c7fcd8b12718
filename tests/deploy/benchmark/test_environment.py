"""The environment of a benchmark is plain values, with None for what the system does not tell."""

import json
import platform

from resdeploy.deploy.benchmark.clocks import Clock
from resdeploy.deploy.benchmark.environment import environment
from resdeploy.deploy.machine import cores


def test_it_is_json_and_names_the_machine() -> None:
    found = environment(None)
    assert json.loads(json.dumps(found)) == found
    assert found["threads"] == found["cores"] == cores()
    assert found["python"] == platform.python_version()
    assert {"resdeploy", "numpy", "pillow"} <= set(found["libraries"])
    assert environment(1)["threads"] == 1


def test_clocks_are_kept_and_pinned_only_if_all_are() -> None:
    pinned, free = Clock("cpu", 1510.4, 1510.4, 1510.4), Clock("gpu", 306.0, 306.0, 624.8)
    for clocks, expected in (((pinned,), True), ((pinned, free), False), ((), None)):
        found = environment(1, clocks=clocks)
        assert found["clocks_pinned"] is expected and len(found["clocks"]) == len(clocks)
    assert environment(1, clocks=(free,))["clocks"][0]["max_mhz"] == 624.8
