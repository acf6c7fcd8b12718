"""The table of targets compares what was found with the right side of each."""

from serving import targets

_OURS = {
    "per_second": 130.0,
    "efficiency": 0.89,
    "cpu_ms": 10.0,
    "offline_cpu_ms": 9.6,
    "single_p99_ms": 10.0,
    "half_load_p99_ms": 30.0,
}
_PEER = {"per_second": 100.0, "cpu_ms": 12.0}


def test_a_target_is_met_on_its_own_side() -> None:
    loads = {"resdeploy, image": _OURS, "resdeploy, tensor": {**_OURS, "efficiency": 0.95}}
    rows = targets({**loads, "fastapi, image": _PEER}, 1.5)
    found = {name: (target, value, met) for name, target, value, met in rows}
    assert found == {
        "cold start to ready, s": ("≤ 1.4", "1.50", "no"),
        "image: efficiency": ("≥ 0.9", "0.89", "no"),
        "image: p99 at half load / single": ("≤ 3", "3.00", "yes"),
        "image: requests/s / fastapi's": ("≥ 1.3", "1.30", "yes"),
        "image: fastapi's CPU time / ours": ("≥ 1.3", "1.20", "no"),
        "image: fastapi's CPU time / offline": ("", "1.25", ""),
        "tensor: efficiency": ("≥ 0.9", "0.95", "yes"),
        "tensor: p99 at half load / single": ("≤ 3", "3.00", "yes"),
    }
