"""Clocks read out of the sysfs trees of an Orin, a Thor and a server."""

from pathlib import Path

from resdeploy.deploy.benchmark.clocks import Clock, are_pinned, read_clocks


def _cpu(sysfs: Path, policy: int, low: object, now: object, high: object) -> None:
    folder = sysfs / "devices" / "system" / "cpu" / "cpufreq" / f"policy{policy}"
    folder.mkdir(parents=True)
    for which, value in (("min", low), ("cur", now), ("max", high)):
        (folder / f"scaling_{which}_freq").write_text(f"{value}\n")


def _device(sysfs: Path, name: str, low: int, now: int, high: int) -> None:
    folder = sysfs / "class" / "devfreq" / name
    folder.mkdir(parents=True)
    for which, value in (("min", low), ("cur", now), ("max", high)):
        (folder / f"{which}_freq").write_text(f"{value}\n")


def test_an_orin_before_and_after_jetson_clocks(tmp_path: Path) -> None:
    before, after = tmp_path / "before", tmp_path / "after"
    _cpu(before, 0, 729600, 960000, 1510400)
    _cpu(before, 4, 729600, 729600, 1510400)
    _device(before, "17000000.gpu", 306000000, 306000000, 624750000)
    found = read_clocks(before)
    assert found == (
        Clock("cpu", 729.6, 960.0, 1510.4),
        Clock("cpu", 729.6, 729.6, 1510.4),
        Clock("gpu", 306.0, 306.0, 624.8),
    )
    assert are_pinned(found) is False
    _cpu(after, 0, 1510400, 1510400, 1510400)
    _cpu(after, 4, 1510400, 1510400, 1510400)
    _device(after, "17000000.gpu", 624750000, 624750000, 624750000)
    found = read_clocks(after)
    assert [clock.name for clock in found] == ["cpu", "gpu"]
    assert are_pinned(found) is True


def test_only_the_gpu_that_computes_counts(tmp_path: Path) -> None:
    for name in ("gpu-gpc-0", "gpu-nvd-0", "15480000.nvdec", "13e00000.host1x"):
        _device(tmp_path, name, 1, 2_000_000, 3_000_000)
    for name in ("17000000.ga10b", "17000000.gv11b", "57000000.gpu"):
        _device(tmp_path / name, name, 5_000_000, 5_000_000, 5_000_000)
        assert read_clocks(tmp_path / name) == (Clock("gpu", 5.0, 5.0, 5.0),)
    assert read_clocks(tmp_path) == (Clock("gpu", 0.0, 2.0, 3.0),)


def test_pinned_cpu_but_not_gpu_is_not_pinned(tmp_path: Path) -> None:
    _cpu(tmp_path, 0, 1510400, 1510400, 1510400)
    _device(tmp_path, "17000000.gpu", 306000000, 306000000, 624750000)
    assert are_pinned(read_clocks(tmp_path)) is False


def test_what_the_system_does_not_tell(tmp_path: Path) -> None:
    assert read_clocks(tmp_path) == () and are_pinned(()) is None
    _cpu(tmp_path, 0, 800000, "<unknown>", 3400000)
    (tmp_path / "devices/system/cpu/cpufreq/policy1").mkdir()
    (tmp_path / "devices/system/cpu/cpufreq/boost").write_text("1")
    assert read_clocks(tmp_path) == ()
    assert isinstance(read_clocks(), tuple)
