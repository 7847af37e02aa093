"""Where runs are kept, as run configs say it, and names as a store takes them."""

import random
from collections.abc import Iterator
from pathlib import Path

from tests.fuzz.harness import Case

SECRET = "hunter2"
"""A password, which may stand in no output."""


def cases(rng: random.Random) -> Iterator[Case]:
    while True:
        every = [*_nonsense(rng), *_sound(rng)]
        yield from rng.sample(every, len(every))


def _resolve(arguments) -> int:
    from orchestration.resources import Project

    profile, root, uri, artifacts = arguments
    project = Project(profile=profile, root=root, tracking_uri=uri, artifacts=artifacts)
    print(project.params.profile, *project.registry)
    return 0


def _case(
    uri: str, artifacts: str, sound: bool, *names, profile: str = "ci", says: str | None = None
) -> Case:
    def check(folder: Path, out: str) -> str | None:
        if SECRET in out:
            return "the password is shown"
        expected = says and says.replace("ROOT", str(folder / "root"))
        return (
            None
            if expected is None or out.strip() == f"ci {expected}"
            else (f"{out.strip()}, expected {expected}")
        )

    return Case(
        "addresses",
        f"{profile} {uri!r:.60} {artifacts!r:.60}",
        sound,
        lambda folder: [profile, str(folder / "root"), uri, artifacts],
        _resolve,
        names=names,
        check=check,
    )


def _nonsense(rng) -> Iterator[Case]:
    for uri in (
        "ftp://server/x",
        "mlflow.db",
        "/abs/mlflow.db",
        "file:///tmp/x",
        "sqlite:/x.db",
        "sqlite://x.db",
        "postgres://server/x",
        "ht!tp://server",
        "localhost:5000",
        "s3://b",
        "C:\\mlflow.db",
        "//server/x",
        "None",
        "redis://x",
    ):
        yield _case(uri, "", False, "tracking_uri")
    for uri in (
        f"https://me:{SECRET}@server/",
        f"postgresql://me:{SECRET}@server/x",
        f"http://{SECRET}@server",
        f"https://server/?token={SECRET}",
        f"mysql+pymysql://me:{SECRET}@h/x",
        f" https://me:{SECRET}@server",
        f"https://me:a {SECRET}@server",
        f"sqlite:///x.db?password={SECRET}",
        f"HTTPS://me:{SECRET}@server",
    ):
        yield _case(uri, "", False, ("login", "address"))
    for artifacts in (f"s3://key:{SECRET}@bucket/x", f"https://a/?X-Amz-Signature={SECRET}"):
        yield _case("https://server", artifacts, False, "login")
    yield _case(
        "https://server", rng.choice(("mlartifacts", "/tmp/x", "./x", "a b")), False, "artifacts"
    )
    yield _case("postgresql://server/x", "", False, "artifacts")
    for profile in ("sd16", "", "../ci", "micro.yaml"):
        yield _case("", "", False, "profile", profile=profile)


def _sound(rng) -> Iterator[Case]:
    number = rng.randrange(10**4)
    for uri, artifacts, says in (
        ("", "", "sqlite:///ROOT/mlflow.db file://ROOT/mlartifacts"),
        (f"sqlite:///x{number}.db", "", f"sqlite:///ROOT/x{number}.db file://ROOT/mlartifacts"),
        (f"sqlite:////tmp/x{number}.db", "there", f"sqlite:////tmp/x{number}.db file://ROOT/there"),
        ("", f"s3://b{number}/x", f"sqlite:///ROOT/mlflow.db s3://b{number}/x"),
        (f"http://server{number}:5000", "", f"http://server{number}:5000 None"),
        (f"https://server{number}", "gs://b/x", f"https://server{number} gs://b/x"),
        (f"postgresql://server/x{number}", "s3://b", f"postgresql://server/x{number} s3://b"),
        ("databricks", "", "databricks None"),
        (
            "",
            f"wasbs://box{number}@me.blob.core.windows.net/x",
            f"sqlite:///ROOT/mlflow.db wasbs://box{number}@me.blob.core.windows.net/x",
        ),
    ):
        yield _case(uri, artifacts, True, says=says)
