"""A bundle is made or changed in one step: no reader and no kill ever shows half of it."""

import os
import resource
import stat
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from resdeploy.deploy.bundle import exchange
from resdeploy.deploy.bundle.bundle import (
    MANIFEST,
    RANGES,
    describe_file,
    read_bundle,
    write_manifest,
)
from resdeploy.deploy.bundle.update import (
    changed_bundle,
    check_replaceable,
    check_target,
    new_bundle,
)
from resdeploy.deploy.errors import BundleError, InputError
from resdeploy.deploy.files import replaced_file

Content = Callable[[Path], dict[str, bytes]]

# every way this code changes what others see; a process may be killed before or after each
_STEPS = ("mkdir", "link", "rename", "replace", "unlink", "rmdir", "fsync", "open")


def _requantize(bundle: Path, number: int) -> None:
    """What `quantize` does to a bundle, with bytes that tell which run wrote them."""
    manifest = read_bundle(bundle).manifest
    with changed_bundle(read_bundle(bundle)) as folder:
        for variant in ("int8", "int8-cpu"):
            with replaced_file(folder / f"{variant}.onnx") as temporary:
                temporary.write_text(f"{variant} of run {number}")
            file = describe_file(folder / f"{variant}.onnx", opset=17, made_from="fp32")
            manifest = manifest.with_variant(variant, file)
        with replaced_file(folder / RANGES) as temporary:
            temporary.write_text(f"ranges of run {number}")
        write_manifest(folder, manifest)


def _export_again(bundle: Path, number: int) -> None:
    """What `export --overwrite` does: nothing of the former bundle is left."""
    manifest, graph = read_bundle(bundle).manifest, (bundle / "fp32.onnx").read_bytes()
    with new_bundle(bundle, overwrite=True) as folder:
        (folder / "fp32.onnx").write_bytes(graph)
        for variant in ("int8", "int8-cpu"):
            (folder / f"{variant}.onnx").write_text(f"{variant} of run {number}")
            file = describe_file(folder / f"{variant}.onnx", opset=17, made_from="fp32")
            manifest = manifest.with_variant(variant, file)
        (folder / RANGES).write_text(f"ranges of run {number}")
        write_manifest(folder, manifest)


def _state(bundle: Path) -> int:
    """The run that a reader finds in a bundle, after every file was checked; 0 before the first."""
    opened = read_bundle(bundle)
    opened.graph("fp32")
    if "int8" not in opened.manifest.variants:
        return 0
    texts = [opened.graph(variant).read_text() for variant in ("int8", "int8-cpu")]
    (run,) = {int(text.rpartition(" ")[2]) for text in texts}
    return run


@contextmanager
def _at_every_step(before: Callable[[], None], after: Callable[[], None]) -> Iterator[None]:
    """Call two functions around every step of `os` and around the exchange itself."""

    def around(function: Callable[..., object]) -> Callable[..., object]:
        def step(*arguments: object, **keywords: object) -> object:
            before()
            result = function(*arguments, **keywords)
            after()
            return result

        return step

    with pytest.MonkeyPatch.context() as patch:
        for name in _STEPS:
            patch.setattr(os, name, around(getattr(os, name)))
        patch.setattr(exchange, "exchange", around(exchange.exchange))
        yield


def _killed(change: Callable[[Path, int], None], bundle: Path, number: int, moment: int) -> bool:
    """Change a bundle in a child that is killed at a moment; whether it came that far."""
    child = os.fork()
    if child == 0:
        passed = 0

        def reach() -> None:
            nonlocal passed
            passed += 1
            if passed > moment:
                os._exit(9)

        try:
            with _at_every_step(reach, reach):
                change(bundle, number)
        except BaseException:
            os._exit(1)
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in (0, 9), "the change itself failed"
    return status == 9


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("change", [_requantize, _export_again])
@pytest.mark.parametrize("one_step", [True, False])
def test_a_kill_at_any_moment_leaves_one_whole_state(
    bundle: Path,
    change: Callable[[Path, int], None],
    one_step: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if not one_step:
        monkeypatch.setattr(exchange, "exchange", lambda *_: False)
    _requantize(bundle, 1)
    moment, old = 0, 1
    while _killed(change, bundle, old + 1, moment):
        found = _state(bundle)
        assert found in (old, old + 1)
        assert (bundle / RANGES).read_text() == f"ranges of run {found}"
        old, moment = found, moment + 1
    assert moment > 40 and _state(bundle) == old + 1
    change(bundle, 99)
    assert _state(bundle) == 99
    assert [path.name for path in bundle.parent.iterdir()] == ["net.bundle"]


@pytest.mark.parametrize("change", [_requantize, _export_again])
def test_a_reader_at_every_moment_sees_one_whole_state(
    bundle: Path, change: Callable[[Path, int], None]
) -> None:
    seen: list[int] = []
    looking = False

    def look() -> None:
        nonlocal looking
        if not looking:  # what the reader itself does is no step
            looking = True
            seen.append(_state(bundle))
            looking = False

    _requantize(bundle, 1)
    with _at_every_step(look, look):
        change(bundle, 2)
    assert seen == sorted(seen) and set(seen) == {1, 2} and len(seen) > 40


@pytest.mark.slow
def test_a_reader_beside_thirty_updates_meets_no_error(bundle: Path) -> None:
    _requantize(bundle, 1)
    seen: list[int] = []
    failures: list[BaseException] = []
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            try:
                opened = read_bundle(bundle)
                for variant in opened.manifest.variants:
                    opened.graph(variant)
                seen.append(int((bundle / RANGES).read_text().rpartition(" ")[2]))
            except BaseException as error:
                failures.append(error)
                return

    reader = threading.Thread(target=read)
    reader.start()
    for number in range(2, 32):
        _requantize(bundle, number)
    done.set()
    reader.join()
    assert not failures and seen == sorted(seen) and _state(bundle) == 31


def test_unchanged_files_are_links_and_stay(bundle: Path) -> None:
    (bundle / "engines").mkdir()
    (bundle / "engines" / "fp16.engine").write_text("plan")
    (bundle / "reports").mkdir()
    (bundle / "reports" / "verify.json").write_text("{}")
    kept = ("fp32.onnx", "engines/fp16.engine", "reports/verify.json")
    before = [(bundle / name).stat().st_ino for name in kept]
    _requantize(bundle, 1)
    assert [(bundle / name).stat().st_ino for name in kept] == before
    assert all((bundle / name).stat().st_nlink == 1 for name in kept)


def test_what_others_add_meanwhile_is_kept(bundle: Path) -> None:
    (bundle / "engines").mkdir()
    (bundle / "engines" / "auto.json").write_text("old")
    with changed_bundle(read_bundle(bundle)) as folder:
        with replaced_file(bundle / "engines" / "auto.json") as temporary:
            temporary.write_text("new")
        (bundle / "reports").mkdir()
        (bundle / "reports" / "bench.json").write_text("{}")
        (folder / RANGES).write_text("{}")
    assert (bundle / "engines" / "auto.json").read_text() == "new"
    assert (bundle / "reports" / "bench.json").read_text() == "{}"
    assert (bundle / RANGES).read_text() == "{}"


def test_a_failed_change_leaves_everything_as_it_was(bundle: Path, content: Content) -> None:
    before = content(bundle.parent)
    with pytest.raises(KeyboardInterrupt), changed_bundle(read_bundle(bundle)) as folder:
        (folder / "fp32.onnx").unlink()
        raise KeyboardInterrupt
    assert content(bundle.parent) == before


def test_two_changes_at_once(bundle: Path) -> None:
    """The later one was prepared from a manifest that is no longer in force."""
    with (
        pytest.raises(BundleError, match="changed by another process meanwhile: run again"),
        changed_bundle(read_bundle(bundle)) as folder,
    ):
        _requantize(bundle, 1)
        (folder / "fp32.onnx").unlink()
    assert _state(bundle) == 1


def test_a_link_to_a_bundle_stays_a_link(bundle: Path, tmp_path: Path) -> None:
    link = tmp_path / "latest.bundle"
    link.symlink_to(bundle)
    _requantize(link, 1)
    assert link.is_symlink() and _state(bundle) == 1
    _export_again(link, 2)
    assert link.is_symlink() and _state(bundle) == 2


def test_a_filesystem_without_links(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(source: str, target: str) -> None:
        raise PermissionError(1, "Operation not permitted", source)

    monkeypatch.setattr(os, "link", refuse)
    _requantize(bundle, 1)
    assert _state(bundle) == 1


def test_a_failure_leaves_nothing(tmp_path: Path) -> None:
    for error in (ValueError("in the body"), KeyboardInterrupt()):
        with pytest.raises(type(error)), new_bundle(tmp_path / "a" / "net.bundle") as folder:
            (folder / "fp32.onnx").write_bytes(b"half")
            raise error
        assert not list((tmp_path / "a").iterdir())


def test_a_failure_leaves_the_old_bundle(bundle: Path, content: Content) -> None:
    before = content(bundle.parent)
    with pytest.raises(ValueError), new_bundle(bundle, overwrite=True) as folder:
        (folder / MANIFEST).write_text("new")
        raise ValueError
    assert content(bundle.parent) == before


def test_overwrite_replaces_the_whole_bundle(bundle: Path, content: Content) -> None:
    (bundle / "left-over.onnx").touch()
    with (
        pytest.raises(InputError, match="exists already: replace it with --overwrite"),
        new_bundle(bundle),
    ):
        pytest.fail("entered")
    with new_bundle(bundle, overwrite=True) as folder:
        (folder / MANIFEST).write_text("new")
        assert (bundle / "left-over.onnx").exists()  # until the very end
    assert content(bundle.parent) == {"net.bundle/manifest.json": b"new"}


def test_permissions_are_the_users_usual_ones(tmp_path: Path) -> None:
    (tmp_path / "usual").mkdir()
    with new_bundle(tmp_path / "net.bundle") as folder:
        (folder / MANIFEST).touch()
    modes = {stat.S_IMODE((tmp_path / n).stat().st_mode) for n in ("usual", "net.bundle")}
    assert len(modes) == 1


def test_targets_that_are_taken(bundle: Path, tmp_path: Path) -> None:
    check_target(tmp_path / "free", overwrite=False)
    check_target(bundle, overwrite=True)
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "a.jpg").touch()
    file = tmp_path / "file"
    file.touch()
    for target in (photos, file):
        with pytest.raises(InputError, match="exists and is not a bundle"):
            check_target(target, overwrite=True)
    with (
        pytest.raises(InputError, match=r"cannot be written: (Not a directory|File exists)"),
        new_bundle(file / "net.bundle"),
    ):
        pytest.fail("entered")


def test_a_bundle_that_cannot_be_replaced_is_known_early(
    bundle: Path, content: Content, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = content(bundle.parent)
    check_replaceable(bundle)
    assert content(bundle.parent) == before
    with pytest.raises(InputError, match=r"^/proc: a mount point, .* mount the folder above it"):
        check_replaceable(Path("/proc"))

    def refuse(path: object, mode: int = 0o777) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    # root, who runs tests in containers, may write into any folder
    monkeypatch.setattr(os, "mkdir", refuse)
    with pytest.raises(InputError, match=r"net\.bundle: cannot be written: Permission denied"):
        check_replaceable(bundle)


def test_an_empty_folder_is_a_target_with_overwrite(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="exists already"):
        check_target(tmp_path, overwrite=False)
    (tmp_path / "empty").mkdir()
    with new_bundle(tmp_path / "empty", overwrite=True) as folder:
        (folder / MANIFEST).touch()
    assert [path.name for path in tmp_path.iterdir()] == ["empty"]


def test_an_unreadable_file_of_the_users_is_not_blamed_on_the_bundle(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), new_bundle(tmp_path / "net.bundle"):
        (tmp_path / "absent.jpg").read_bytes()
    with (
        pytest.raises(InputError, match=r"net\.bundle: cannot be written: Is a directory"),
        new_bundle(tmp_path / "net.bundle") as folder,
    ):
        folder.write_bytes(b"")


def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    """A limit on file sizes gives EFBIG where a full disk gives ENOSPC."""
    script = textwrap.dedent(
        """
        import signal, sys
        from pathlib import Path
        from resdeploy.deploy.bundle.update import new_bundle
        from resdeploy.deploy.errors import InputError
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        try:
            with new_bundle(Path(sys.argv[1])) as folder:
                (folder / "fp32.onnx").write_bytes(bytes(100_000))
        except InputError as error:
            print(error)
        """
    )
    result = subprocess.run(
        [sys.executable, "-c", script, tmp_path / "net.bundle"],
        capture_output=True,
        text=True,
        check=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096)),
    )
    assert result.stdout == f"{tmp_path / 'net.bundle'}: cannot be written: File too large\n"
    assert not list(tmp_path.iterdir())


def test_a_name_that_leaves_no_room_for_a_temporary_one_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be written: File name too long"):
        check_target(tmp_path / ("n" * 250), overwrite=False)
    assert not list(tmp_path.iterdir())
