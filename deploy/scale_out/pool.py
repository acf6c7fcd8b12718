"""A pool of Ray actors, each with a session of its own, and images spread over them by Ray Data.

A share of the images is one row of a dataset. What it gives depends on its images alone, so Ray may
run it again elsewhere when a worker dies, and the results are the same for any number of workers.
"""

import logging
import os
import pickle
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from resdeploy.deploy import errors
from resdeploy.deploy.errors import BackendError, ResdeployError, first_line
from resdeploy.deploy.images.spread import Open, Result, State, Work
from resdeploy.deploy.optional import needs
from resdeploy.deploy.scale_out.locations import as_files, content_of, only_here
from resdeploy.deploy.scale_out.packed import pack, unpacked

# shares of one Ray task: few enough that a worker that dies costs little
_TASKS_OF_A_WORKER = 16
_MOST_SHARES_OF_A_TASK = 16

# the number of a share, the places of its images and its result → a table of Arrow
Encode = Callable[[int, Sequence[str], Any], Any]


@contextmanager
def cluster() -> Iterator[None]:
    """Connected to the cluster that RAY_ADDRESS names, else to one started here for the time being.

    Raises:
        MissingDependencyError: ray is not installed.
        BackendError: no cluster answers there.
    """
    # a cluster of our own tells nobody that it was there
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    with needs("--engine ray"):
        import ray
        import ray.data
    if ray.is_initialized():
        yield
        return
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    try:
        ray.init(**quiet, **({} if "RAY_ADDRESS" in os.environ else {"include_dashboard": False}))
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise BackendError(f"no Ray cluster: {first_line(error)}") from error
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    ray.data.DataContext.get_current().enable_progress_bars = False
    try:
        yield
    finally:
        ray.shutdown()


@dataclass(frozen=True)
class RayPool:
    """Runs shares of images on actors; a `Spread`. Use it inside `cluster`.

    Attributes:
        bundle: which travels to every actor.
        places: of all images, by position.
        workers: actors; None for as many as the cluster has cores, or GPUs.
        gpus: of each actor.
        carry: read the images here and let them travel, for workers that do not see the places.
    """

    bundle: Path
    places: Sequence[str]
    workers: int | None = None
    gpus: int = 0
    carry: bool = False

    def __call__(
        self, opened: Open[State], work: Work[State, Result], shares: Sequence[range]
    ) -> Iterator[Result]:
        """The results in order.

        Raises:
            ResdeployError: what `opened` or `work` raised in a worker.
            BackendError: the cluster failed.
        """
        waiting: dict[int, Result] = {}
        due = 0
        for row in self._rows(self.dataset(opened, work, shares, _as_bytes)):
            waiting[row["number"]] = pickle.loads(row["result"])
            while due in waiting:
                yield waiting.pop(due)
                due += 1

    def dataset(
        self,
        opened: Open[State],
        work: Work[State, Result],
        shares: Sequence[range],
        encode: Encode,
    ) -> Any:
        """The results as a Ray dataset that is not run yet, each made a table by `encode`."""
        import ray
        from ray import cloudpickle

        job = ray.put(cloudpickle.dumps((opened, work, encode)))
        # with the rows: as an actor's arguments they would earn a warning of Ray's
        sources = cloudpickle.dumps((job, ray.put(pack(self.bundle))))
        actors = max(1, min(self.workers or self._actors(), len(shares)))
        tasks = max(_TASKS_OF_A_WORKER * actors, -(-len(shares) // _MOST_SHARES_OF_A_TASK))
        rows = [self._row(number, share, sources) for number, share in enumerate(shares)]
        dataset = ray.data.from_items(rows, override_num_blocks=min(len(rows), tasks))
        return dataset.map_batches(
            _Worker,
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(size=actors),
            num_cpus=0 if self.gpus else 1,
            num_gpus=self.gpus or None,
        )

    def _actors(self) -> int:
        import ray

        return int(ray.cluster_resources().get("GPU" if self.gpus else "CPU", 1))

    def _row(self, number: int, share: range, sources: bytes) -> dict[str, Any]:
        places = [self.places[position] for position in share]
        carried = self.carry or any(map(only_here, places))
        contents = [content_of(place) for place in places] if carried else None
        return {
            "number": number,
            "share": pickle.dumps((places, contents)),
            "sources": sources,
        }

    def _rows(self, dataset: Any) -> Iterator[Mapping[str, Any]]:
        from ray.exceptions import RayError

        try:
            yield from dataset.iter_rows()
        except RayError as error:
            raise _cause(error) from error


class _Worker:
    """One actor: what it opened for its first share stays open."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._answer: Callable[[int, Sequence[str], Sequence[Path]], Any] | None = None

    def __call__(self, batch: Mapping[str, Any]) -> Any:
        """Work on the one share in a batch."""
        if self._answer is None:
            self._answer = self._opened(batch["sources"][0])
        places, contents = pickle.loads(batch["share"][0])
        with as_files(places, contents) as files:
            return self._answer(int(batch["number"][0]), places, files)

    def _opened(self, sources: bytes) -> Callable[[int, Sequence[str], Sequence[Path]], Any]:
        import ray

        opened, work, encode = pickle.loads(ray.get(pickle.loads(sources)[0]))
        bundle = self._stack.enter_context(unpacked(ray.get(pickle.loads(sources)[1])))
        state = self._stack.enter_context(opened(bundle))

        def answer(number: int, places: Sequence[str], files: Sequence[Path]) -> Any:
            return encode(number, places, work(state, number, files))

        return answer


def _as_bytes(number: int, places: Sequence[str], result: Any) -> Any:
    import pyarrow as pa

    return pa.table({"number": [number], "result": pa.array([pickle.dumps(result)], pa.binary())})


def _cause(error: Exception) -> ResdeployError:
    """What was raised in a worker: of that, Ray Data brings only the traceback's text here."""
    raised = re.findall(rf"^{re.escape(errors.__name__)}\.(\w+): (.+)$", str(error), re.MULTILINE)
    if not raised:
        return BackendError(f"the Ray cluster failed: {first_line(error)}")
    name, message = raised[0]
    kind: type[ResdeployError] = getattr(errors, name)
    return kind(message)


def write_parquet(dataset: Any, place: str) -> None:
    """Write a dataset as Parquet files into a folder or below a URI, from where its rows are.

    Raises:
        ResdeployError: what a worker raised.
    """
    from ray.exceptions import RayError

    try:
        dataset.write_parquet(place)
    except RayError as error:
        raise _cause(error) from error
    except OSError as error:
        raise BackendError(f"{place}: cannot be written: {first_line(error)}") from error
