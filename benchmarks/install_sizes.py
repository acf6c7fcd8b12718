"""Prints what each extra adds to this environment on disk, in MB, from what pip recorded.

    python benchmarks/install_sizes.py

An extra counts with everything it needs that is installed here, the base installation included.
"""

from importlib.metadata import Distribution, PackageNotFoundError, distribution, requires
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

EXTRAS = ("", "cpu", "runtime", "export", "serve", "report", "tensorrt-rtx")


def closure(names: list[Requirement]) -> dict[str, Distribution]:
    """Every distribution that these requirements need, by name."""
    found: dict[str, Distribution] = {}
    seen: set[tuple[str, frozenset[str]]] = set()
    while names:
        requirement = names.pop()
        key = (canonicalize_name(requirement.name), frozenset(requirement.extras))
        if key in seen:
            continue
        seen.add(key)
        try:
            found[key[0]] = distribution(requirement.name)
        except PackageNotFoundError:
            continue
        for text in requires(requirement.name) or ():
            needed = Requirement(text)
            marker = needed.marker
            if marker is None or any(
                marker.evaluate({"extra": extra}) for extra in ("", *requirement.extras)
            ):
                names.append(needed)
    return found


def megabytes(found: dict[str, Distribution]) -> float:
    total = 0
    for each in found.values():
        for file in each.files or ():
            path = Path(str(each.locate_file(file)))
            if path.is_file():
                total += path.stat().st_size
    return total / 1e6


def main() -> None:
    for extra in EXTRAS:
        name = f"resdeploy[{extra}]" if extra else "resdeploy"
        found = closure([Requirement(name)])
        largest = sorted(found, key=lambda n: megabytes({n: found[n]}), reverse=True)[:4]
        print(f"{extra or 'base':14} {megabytes(found):8.0f} MB   {', '.join(largest)}")


if __name__ == "__main__":
    main()
