"""All that varies between GoogLeNets, as far as their files tell."""

from dataclasses import dataclass

MODULES = ("3a", "3b", "4a", "4b", "4c", "4d", "4e", "5a", "5b")


@dataclass(frozen=True)
class Conv:
    """A convolution by name: (out, in, kernel, kernel)."""

    name: str
    out: int
    inputs: int
    kernel: int


@dataclass(frozen=True)
class GoogLeNetLayout:
    """The stem's convolutions, those of each module, and whether they have batch norms."""

    stem: tuple[Conv, ...]
    modules: tuple[tuple[Conv, ...], ...]
    normed: bool

    @property
    def small(self) -> bool:
        """Made for images of 32 pixels: nothing strides before the first pool."""
        return self.stem[0].kernel != 7

    @property
    def features(self) -> int:
        """Channels that come out of the last module."""
        return module_width(self.modules[-1])


def module_width(module: tuple[Conv, ...]) -> int:
    """Channels of a module's four branches together."""
    ends = {"branch1", "branch2.1", "branch4.1", module[-2].name.partition(".")[2]}
    return sum(conv.out for conv in module if conv.name.partition(".")[2] in ends)
