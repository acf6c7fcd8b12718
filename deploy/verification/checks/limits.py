"""The limits a user may set."""

from dataclasses import asdict, dataclass

from resdeploy.deploy.errors import InputError

# what cannot be judged without the true classes
NEED_CLASSES = ("max_drop", "min_top1", "max_class_drop")

_SHARES = (100.0, "from 0 to 100")


@dataclass(frozen=True)
class Limits:
    """Limits in percent or percentage points; None for no limit, or for the default one.

    `max_drop` and `max_class_drop` have defaults (`deploy.defaults`).
    """

    max_drop: float | None = None
    min_top1: float | None = None
    min_agreement: float | None = None
    max_class_drop: float | None = None
    max_slower: float | None = None

    def checked(self, *, images: bool) -> "Limits":
        """Return self, or raise InputError for limits that make no sense or need images."""
        for name, value in asdict(self).items():
            most, named = (float("inf"), "of 0 or more") if name == "max_slower" else _SHARES
            if value is not None and not 0 <= value <= most:
                raise InputError(f"{_option(name)} {value:g}: not a percentage {named}")
        for name in () if images else self.needing_classes():
            raise InputError(
                f"--{name} needs the true classes: give --data with class folders or a list of "
                "path,label"
            )
        return self

    def needing_classes(self) -> list[str]:
        """The limits that were set and need true classes, by the name of their check."""
        values = asdict(self)
        return [_option(name)[2:] for name in NEED_CLASSES if values[name] is not None]


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"
