"""Work on the workers of a Ray cluster: an executor (`ml.store.making`) of several processes.

Each worker is an actor that gets the work once, and one item at a time, so that what the work loads
is loaded once a worker and none has a queue. A worker that is lost, with its machine or alone, is
replaced, and its item is done by another; an exception of the work itself is raised at once. Ray's
own restarts are not used: a lost worker's item would wait for room for a new worker, while others
have nothing to do. Not here: how Ray is started (`ml.compute.ray_start`).
"""

import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from ml.compute.ray_start import OPEN, asks_for_token, import_ray, open_will_do, worker_environment
from ml.compute.versions import versions
from ml.errors import WorkerLost
from ml.store.files import say

Item = TypeVar("Item")
Result = TypeVar("Result")
LOSSES = 3
"""Workers that one item, or the start of one worker, may cost."""
LOOK, PATIENCE = 60.0, 1800.0
"""Seconds without a worker after which this is said, and after which it is given up: a cluster that
grows with its work needs minutes."""


class Worker:
    """In a process of the cluster: its own copy of the work."""

    def __init__(self, work: Callable[[Any], Any]) -> None:
        self.work = work

    def ready(self) -> tuple[dict[str, str], bool]:
        """The versions of what it works with, and whether its cluster asks for a token."""
        return versions(), asks_for_token()

    def do(self, item: Any) -> Any:
        return self.work(item)


@dataclass(frozen=True)
class RayPool:
    """An executor. Ray must be there when it is called (`ml.compute.ray_start`)."""

    workers: int
    num_cpus: float  # of Ray's that a worker takes
    num_gpus: float
    threads: int  # torch's, in each worker

    def __call__(
        self, work: Callable[[Item], Result], items: Sequence[Item]
    ) -> Iterator[tuple[int, Result]]:
        ray = import_ray()
        run = _Run(self, work, items)
        try:
            for _ in range(min(self.workers, len(items))):
                run.start()
            while run.left:
                done, _ = ray.wait(list(run.busy), num_returns=1, timeout=LOOK)
                if not done:
                    run.wait()
                for reference in done:
                    yield from run.take(reference)
        finally:
            for actor, _ in run.busy.values():
                ray.kill(actor)


class _Run:
    """One call of the pool: who does what, and what is left."""

    def __init__(
        self, pool: RayPool, work: Callable[[Item], Result], items: Sequence[Item]
    ) -> None:
        self.ray, self.pool, self.items = import_ray(), pool, items
        self.work = self.ray.put(work)
        self.waiting, self.left = deque(range(len(items))), len(items)
        self.busy: dict[Any, tuple[Any, int | None]] = {}  # None: it is starting
        self.lost: Counter[int | None] = Counter()
        self.idle_since = time.monotonic()
        self.actor = self.ray.remote(Worker).options(
            num_cpus=pool.num_cpus,
            num_gpus=pool.num_gpus,
            max_restarts=0,
            scheduling_strategy="SPREAD",
            runtime_env={"env_vars": worker_environment(pool.threads)},
        )

    def start(self) -> None:
        actor = self.actor.remote(self.work)
        self.busy[actor.ready.remote()] = actor, None

    def take(self, reference: Any) -> Iterator[tuple[int, Any]]:
        """What a worker has done; gives it the next item, or lets it go."""
        actor, place = self.busy.pop(reference)
        try:
            result = self.ray.get(reference)
        except (
            self.ray.exceptions.RayActorError,
            self.ray.exceptions.OutOfMemoryError,  # ended by Ray's memory monitor: no RayActorError
        ) as error:
            self._replace(actor, place, error)
            return
        except self.ray.exceptions.RayTaskError as error:
            self.ray.kill(actor)
            if isinstance(cause := getattr(error, "cause", None), Exception):
                raise cause from error
            raise
        if place is None:
            self.lost[None] = 0
            theirs, token = result
            check_worker(theirs, token, open_will_do(), versions())
        if self.waiting:
            following = self.waiting.popleft()
            self.busy[actor.do.remote(self.items[following])] = actor, following
        else:
            self.ray.kill(actor)
        if place is not None:
            self.left -= 1
            yield place, result

    def _replace(self, actor: Any, place: int | None, error: Exception) -> None:
        self.ray.kill(actor)  # one that cannot be reached may come back
        self.lost[place] += 1
        what = "before it began" if place is None else f"with {str(self.items[place])[:100]}"
        if getattr(error, "actor_init_failed", False) or self.lost[place] >= LOSSES:
            times = "once" if self.lost[place] == 1 else f"{self.lost[place]} times"
            raise WorkerLost(
                f"a worker was lost {times} {what}: out of memory, killed, or it cannot import "
                f"what this process has; fewer executor.workers need less memory. {error}"
            ) from error
        say(f"a worker was lost {what}: another one takes its place")
        if place is not None:
            self.waiting.appendleft(place)
        if len(self.busy) < self.left:
            self.start()
        self.idle_since = time.monotonic()

    def wait(self) -> None:
        """Says, and in the end refuses, that no worker finds room."""
        if any(place is not None for _, place in self.busy.values()):
            self.idle_since = time.monotonic()
            return
        wanted = f"{self.pool.num_cpus:g} CPUs and {self.pool.num_gpus:g} GPUs"
        free = self.ray.available_resources()
        message = (
            f"no worker of {wanted} has begun yet; the cluster has "
            f"{free.get('CPU', 0):g} and {free.get('GPU', 0):g} left"
        )
        if time.monotonic() - self.idle_since > PATIENCE:
            raise WorkerLost(f"{message}: given up after {PATIENCE / 60:.0f} minutes")
        say(f"{message}: waiting")


def check_worker(
    theirs: dict[str, str], token: bool, unguarded: bool, ours: dict[str, str]
) -> None:
    """Raises ValueError for a worker with other versions than the command's, or no token."""
    for name in ours:
        if theirs.get(name) != ours[name]:
            raise ValueError(
                f"a worker of the cluster has {name} {theirs.get(name)}, expected "
                f"{ours[name]} as here: other versions may make other pictures. Bring the same "
                "checkout and environment to every machine"
            )
    if not (token or unguarded):
        raise ValueError(f"the Ray cluster asks for no token: {OPEN}")
