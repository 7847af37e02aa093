"""The sensor `changed_profiles`: what changed in a profile's or a vocabulary's file is made again.

It is off until somebody turns it on, since a run may take hours. A look compares what the profiles
say with what they said when they were last asked for; equal files in other words, a comment or
another order, are no change. It requests nothing

- at the first look, and for a profile whose job `pipeline` was never launched: its first run, with
  its place and its registry, is a person's; the sensor repeats the last one's run config;
- before two looks have seen the same, since somebody may still be typing;
- while a run of the profile is under way: its successor begins after it;
- for a file that cannot be used, which every look reports until it is mended.
"""

import dataclasses
import json
import time

import dagster as dg

from ml.settings.profile import find_file, load_params
from ml.store.files import sha256_file, sha256_json
from ml.words.vocabulary import load_vocabulary
from orchestration.jobs import pipeline
from orchestration.resources import PARTITION, PROFILES, asked_profile, known_profiles
from orchestration.runs import write_off_the_dead

SECONDS = 15  # between two looks
WHY = "words-to-masks/changed"  # a requested run's tag: the sections that changed
SAME_DATA = ("profile", "executor")  # settings that make the same data
FINISHED = (dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED)
UNDER_WAY = [status for status in dg.DagsterRunStatus if status not in FINISHED]
Said = dict[str, str]  # short digest by section


def said_by(profile: str) -> Said:
    """What a profile says, and the files that it names hold: a short digest a section.

    Raises ValueError, or OSError for a file that is not there, in one sentence.
    """
    params = load_params(profile)
    names = [field.name for field in dataclasses.fields(params) if field.name not in SAME_DATA]
    values = {name: params.section(name) for name in names}
    values["vocabulary"] = load_vocabulary(params.vocabulary).digest
    if params.prompts.texts:
        values["prompts.texts"] = sha256_file(find_file(params.prompts.texts))
    return {name: sha256_json(value)[:8] for name, value in values.items()}


def last_config(instance: dg.DagsterInstance, profile: str) -> dict | None:
    """The run config of the profile's last run of the whole graph; None when it had none.

    A run of another file that bears the same name is another profile's. One whose profile stands in
    a variable that is not set here can't be repeated from here, and is passed over.
    """
    of_profile = dg.RunsFilter(job_name=pipeline.name, tags={PARTITION: profile})
    for run in instance.get_runs(of_profile, limit=20):
        try:
            asked = asked_profile(run.run_config)
        except ValueError:
            continue
        if asked in ("", profile):
            return dict(run.run_config)
    return None


def under_way(instance: dg.DagsterInstance, profile: str) -> str:
    """The id of a run of the profile that has not ended, "" without one."""
    unfinished = dg.RunsFilter(statuses=UNDER_WAY, tags={PARTITION: profile})
    return next((run.run_id for run in instance.get_runs(unfinished, limit=1)), "")


@dataclasses.dataclass
class Memory:
    """What the sensor knows from its last look: its cursor."""

    since: str  # when it began, so that no run key of an earlier beginning is taken for its own
    count: int  # of requests
    done: dict[str, Said]  # by profile: what was made, or found at the first look
    seen: dict[str, Said]  # by profile: what the last look saw and was not asked for yet

    @classmethod
    def of(cls, cursor: str | None) -> "Memory":
        if not cursor:
            return cls("", 0, {}, {})
        try:
            held = json.loads(cursor)
            names = held["sections"].split()
            done, seen = (
                {
                    profile: {n: d for n, d in zip(names, row.split(" "), strict=True) if d != "-"}
                    for profile, row in held[table].items()
                }
                for table in ("done", "seen")
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(
                f"this sensor's cursor is none that it wrote ({cursor[:40]!r}...): empty it (Edit, "
                "on the sensor's page), and it begins to watch anew"
            ) from error
        return cls(held["since"], held["count"], done, seen)

    def cursor(self) -> str:
        """As short as can be, since the sensor's page shows all of it: sections are named once."""
        tables = (self.done, self.seen)
        names = sorted({name for table in tables for said in table.values() for name in said})
        done, seen = (
            {profile: " ".join(said.get(n, "-") for n in names) for profile, said in table.items()}
            for table in tables
        )
        held = {"since": self.since, "count": self.count, "sections": " ".join(names)}
        return json.dumps(held | {"done": done, "seen": seen})


class Look:
    """One look at the profiles: what it requests, and what it says."""

    def __init__(self, instance: dg.DagsterInstance, memory: Memory) -> None:
        self.instance, self.memory, self.first = instance, memory, not memory.since
        self.requests: list[dg.RunRequest] = []
        self.notes: list[str] = []
        if self.first:
            memory.since = time.strftime("%Y-%m-%d %H:%M:%S")

    def at(self, profile: str) -> None:
        """Compares what a profile says with what it said."""
        seen = self.memory.seen.pop(profile, None)
        try:
            said = said_by(profile)
        except (ValueError, OSError) as error:
            self.notes.append(f"{profile} can't be used, and no run is requested for it: {error}")
            return
        done = self.memory.done.setdefault(profile, said if self.first else {})
        changed = sorted(name for name in said | done if said.get(name) != done.get(name))
        if not changed:
            return
        what = f"{profile} changed ({', '.join(changed)})" if done else f"{profile} is new"
        config = last_config(self.instance, profile)
        if config is None:
            self.memory.done[profile] = said
            self.notes.append(
                f"{what}, and its whole graph was never run from here: launch the job "
                f"{pipeline.name} on the partition {profile} once, and changes after that "
                "request its runs"
            )
            return
        self.memory.seen[profile] = said
        if said != seen:
            self.notes.append(f"{what}; its run is requested when the next look sees the same")
        elif run := under_way(self.instance, profile):
            self.notes.append(f"{what}; its run is requested when the run {run[:8]} has ended")
        else:
            self.request(profile, said, changed, config)

    def request(self, profile: str, said: Said, changed: list[str], config: dict) -> None:
        memory = self.memory
        memory.count += 1
        memory.done[profile] = memory.seen.pop(profile)
        self.requests.append(
            dg.RunRequest(
                # the same as long as the cursor is: a daemon that is killed requests it once
                run_key=f"{memory.since} {memory.count} {profile} {sha256_json(said)[:12]}",
                run_config=config,
                partition_key=profile,
                tags={WHY: ", ".join(changed)},
            )
        )


@dg.sensor(
    job=pipeline,
    minimum_interval_seconds=SECONDS,
    description="Requests a profile's run again when its file, its vocabulary or its prompts "
    "changed. Off until you turn it on. Why it requests nothing stands in the list of ticks, and "
    "so does a file that can't be used.",
)
def changed_profiles(context: dg.SensorEvaluationContext) -> dg.SensorResult:
    memory, instance, names = Memory.of(context.cursor), context.instance, known_profiles()
    write_off_the_dead(instance)
    look = Look(instance, memory)
    for profile in names:
        look.at(profile)
    for gone in [name for name in memory.done if name not in names]:
        del memory.done[gone]
    new = [name for name in names if not instance.has_dynamic_partition(PROFILES.name, name)]
    for note in look.notes:
        context.log.warning(note)
    watched = f"{'watches' if look.first else 'nothing changed in'} {', '.join(names)}"
    if not look.notes:
        context.log.info(watched)
    return dg.SensorResult(
        run_requests=look.requests,
        skip_reason=None if look.requests else "; ".join(look.notes) or watched,
        cursor=memory.cursor(),
        dynamic_partitions_requests=[PROFILES.build_add_request(new)] if new else [],
    )


SENSORS = [changed_profiles]
