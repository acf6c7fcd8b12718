"""Class names for a network: the user's, those beside its file, in it, of folders, or numbers."""

from collections.abc import Iterable
from pathlib import Path

from resdeploy.deploy.errors import InputError
from resdeploy.deploy.images.labels import (
    class_folders,
    find_labels_file,
    numbered,
    read_labels,
)

Names = tuple[str, ...]


def class_names(
    path: Path,
    classes: int | None,
    file: Path | None,
    folders: Iterable[Path],
    *,
    stored: Names = (),
) -> tuple[Names, tuple[str, ...]]:
    """The names in the order of the classes, and what to say where they had to be assumed.

    Args:
        path: the checkpoint or the graph, beside which a file of names may lie.
        classes: outputs of the head, or None where there is none: no names.
        file: what the user gave, or None.
        folders: of images, whose class folders may give the names; `stored` in the checkpoint.

    Raises:
        InputError: the file has another number of names, or there is no head to name.
    """
    if classes is None:
        if file is not None:
            raise InputError(
                f"{file}: class names given, but the checkpoint has no classification head: "
                "leave --classes out"
            )
        return (), ()
    source = file or find_labels_file(path)
    if source is None:
        return _without_a_file(stored, classes, folders)
    labels = read_labels(source)
    if len(labels) != classes:
        raise InputError(
            f"{source}: {len(labels)} class names, but the network has {classes} classes: "
            "give the right file with --classes"
        )
    if file is not None:
        return labels, ()
    return labels, (
        f"class names are those of {source.name} beside {path.name}; give others with --classes",
    )


def _without_a_file(
    stored: Names, classes: int, folders: Iterable[Path]
) -> tuple[Names, tuple[str, ...]]:
    if len(stored) == classes:
        return stored, ("class names are those stored with the checkpoint",)
    said: tuple[str, ...] = ()
    if stored:
        said = (
            f"the {len(stored)} class names stored with the checkpoint are not those of its "
            f"{classes} classes and are left",
        )
    for folder in folders:
        names = class_folders(folder)
        if len(names) == classes:
            return names, (
                *said,
                f"class names are the sorted names of the {classes} folders in {folder}, as "
                "torchvision's ImageFolder numbers them; give others with --classes",
            )
    return numbered(classes), (
        *said,
        "class names are not known, classes are numbered class_0, class_1, …; "
        "name them with --classes class_indices.json",
    )
