"""`python -m ml plan --profile sd15 --images 10000`: what a run needs, before anything starts.

Prints downloads, disk by stage, memory and hours, and ends with exit code 4 when this machine
cannot hold it. Here: the page and the verdict. Not here: the arithmetic (`ml.cli.plan_needs`), the
models' facts (`ml.cli.plan_models`), the measurement (`ml.cli.plan_probe`).
"""

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from ml.arguments import add_profile, add_root, make_parser, number
from ml.cli.plan_models import Drawing, Found, drawing_of, find_models
from ml.cli.plan_needs import (
    Counts,
    Figures,
    Need,
    counts_of,
    disk_needs,
    feature_bytes,
    gpu_needs,
    largest,
    ram_needs,
    stage_seconds,
    with_images,
)
from ml.errors import DONE, RESOURCES
from ml.pipeline.workspace import Workspace
from ml.settings.params import Params
from ml.settings.profile import load_params
from ml.settings.sections import REAL_SOURCES
from ml.words.prompts import check
from ml.words.text_limit import find_limit
from ml.words.texts import read_texts
from ml.words.vocabulary import Vocabulary, load_vocabulary

SPARE = 1.05
"""Free disk over what is needed: file systems slow down and fail before they are full."""
CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")


@dataclass
class Plan:
    """Everything the page shows; `refusals` says why this machine cannot hold it."""

    params: Params
    counts: Counts
    models: list[Found]
    drawing: Drawing | None
    module: tuple[int, int] = (0, 0)  # of the grounding module, see `grounding_size`
    disk: list[Need] = field(default_factory=list)
    there: dict[str, int] = field(default_factory=dict)  # stage -> bytes on disk already
    gpu: list[Need] = field(default_factory=list)
    ram: list[Need] = field(default_factory=list)
    seconds: dict[str, float | None] = field(default_factory=dict)
    probe: object | None = None  # ml.cli.plan_probe.Probe
    refusals: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def make_plan(params: Params, workspace: Workspace, *, probe: bool = True) -> Plan:
    """Plans a run. Raises ValueError for settings that the first stage would refuse."""
    vocabulary = load_vocabulary(params.vocabulary)
    check(vocabulary, params.prompts)
    limit = find_limit(workspace.model(params.diffusion.model), params.diffusion.revision)
    if limit is not None:
        limit.refuse_words(vocabulary.owners())
    if params.prompts.texts:
        read_texts(params.prompts.texts, vocabulary, limit)
    models = find_models(params, workspace)
    plan = Plan(params, counts_of(params, vocabulary), models, drawing_of(models[0]))
    plan.there = {
        path.name: folder_bytes(path) for path in sorted(workspace.data.glob("*")) if path.is_dir()
    }
    if plan.drawing is None:
        plan.notes.append(
            f"{models[0].name} is neither on this machine nor in the table of known "
            "models: disk, memory and hours are not planned; download it first"
        )
        return plan
    _judge_data(plan, workspace)
    device = _device(plan)
    if probe and device is not None:
        from ml.cli.plan_probe import run_probe

        plan.probe = run_probe(params, vocabulary, workspace, models, plan.drawing.side)
    _fill(plan, vocabulary, device)
    _judge_disk(plan, workspace)
    _judge_memory(plan, device)
    return plan


def _judge_data(plan: Plan, workspace: Workspace) -> None:
    """Whether the real data of the profile is there, in its own layout."""
    benchmark = plan.params.benchmark
    if benchmark.source not in REAL_SOURCES:
        return
    from ml.datasets import NoSuchPart, open_source

    for part in ("test", "train"):
        try:
            open_source(benchmark, part, workspace.model(benchmark.root))
        except NoSuchPart as absent:
            plan.notes.append(f"no upper bound: {absent}")
        except ValueError as error:
            if str(error) not in plan.refusals:
                plan.refusals.append(str(error))


def _device(plan: Plan):
    """The torch device of the profile, None when it is not there, which is a reason to refuse."""
    from ml.compute.devices import find_device

    try:
        return find_device(plan.params.diffusion.device, "diffusion.device")
    except ValueError as error:
        plan.refusals.append(str(error))
        return None


def _fill(plan: Plan, vocabulary: Vocabulary, device) -> None:
    from ml.grounding.features import CACHE_BYTES

    plan.module = module, kept = grounding_size(plan.params, plan.drawing)
    backbone = plan.models[2].parameters
    measured = plan.probe.picture_bytes if plan.probe else None
    plan.disk = disk_needs(
        plan.counts, plan.drawing, plan.params, len(vocabulary.classes), module, backbone, measured
    )
    on_cpu = device is not None and device.type == "cpu"  # one memory for both
    plan.gpu = gpu_needs(
        plan.drawing, plan.params, module, kept, backbone, **({"context": 0} if on_cpu else {})
    )
    if plan.probe:
        plan.gpu = [
            replace(n, bytes=plan.probe.memory[n.name], how="measured by the probe")
            if n.name in plan.probe.memory
            else n
            for n in plan.gpu
        ]
    plan.ram = ram_needs(plan.counts, plan.drawing, plan.params, CACHE_BYTES)
    if on_cpu:
        plan.ram = [replace(n, bytes=n.bytes + _by_name(plan.gpu, n.name)) for n in plan.ram]
    cached = CACHE_BYTES // feature_bytes(plan.drawing, 2)
    figures = plan.probe.figures if plan.probe else Figures()
    plan.seconds = stage_seconds(plan.counts, figures, plan.params, cached)


def grounding_size(params: Params, drawing: Drawing) -> tuple[int, int]:
    """(trainable parameters, bytes that autograd keeps of one sample) of the grounding module.

    Built and run for real on torch's meta device, which has shapes and no memory.
    """
    import torch

    from ml.grounding.config import make_config
    from ml.grounding.module import GroundingModule

    config = make_config(params.grounding, drawing.features, drawing.text_width, drawing.side, 1)
    kept: dict[int, tuple[int, object]] = {}

    def note(tensor):
        kept[tensor.untyped_storage()._cdata] = (tensor.nbytes, tensor)  # kept alive: ids return
        return tensor

    with torch.device("meta"):
        module = GroundingModule(config).train()
        features = {r: torch.empty(1, c, r, r) for r, c in drawing.features.items()}
        words = torch.empty(1, 2, drawing.text_width), torch.ones(1, 2, dtype=torch.bool)
        evidence = torch.empty(1, 2, len(config.evidence_timesteps), *drawing.latent[1:])
        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            module(features, *words, evidence if config.competition else None)
    own = {p.untyped_storage()._cdata for p in module.parameters()}
    return (
        sum(p.numel() for p in module.parameters()),
        sum(size for place, (size, _) in kept.items() if place not in own),
    )


def _judge_disk(plan: Plan, workspace: Workspace) -> None:
    """Free space where the data goes, and where downloads go, taken together on one file system."""
    from huggingface_hub.constants import HF_HUB_CACHE

    wanted: dict[int, tuple[Path, float]] = {}
    data = sum(max((n.bytes or 0) - plan.there.get(n.name, 0), 0) for n in plan.disk)
    if again := max((plan.there.get(n.name, 0) for n in plan.disk), default=0):
        plan.notes.append(
            "a stage that is made anew, with other settings, needs up to "
            f"{show_bytes(again)} more while its old folder still stands"
        )
    downloads = sum(m.bytes or 0 for m in plan.models if m.state == "to download")
    for place, size in ((workspace.data, data), (Path(HF_HUB_CACHE), downloads)):
        place = next(p for p in (place, *place.absolute().parents) if p.exists())
        first, before = wanted.get(place.stat().st_dev, (place, 0))
        wanted[place.stat().st_dev] = (first, before + size)
    for place, size in wanted.values():
        free = shutil.disk_usage(place).free
        plan.notes.append(
            f"disk at {place}: {show_bytes(size)} still to be written, {show_bytes(free)} free"
        )
        if size * SPARE > free:
            plan.refusals.append(
                f"disk: {show_bytes(size)} are still needed at {place} and {show_bytes(free)} are "
                "free; free some, ask for fewer pictures (--images, prompts.*), or put data/ on a "
                "larger disk (--root)"
            )


def _judge_memory(plan: Plan, device) -> None:
    total = ram_bytes()
    plan.notes.append(f"main memory: {show_bytes(total)}")
    if (need := largest(plan.ram)) > total:
        plan.refusals.append(
            f"main memory: {show_bytes(need)} are needed, this machine has "
            f"{show_bytes(total)}; ask for fewer training pictures "
            "(prompts.train_*), or take a larger machine"
        )
    if device is None or device.type != "cuda":
        return
    import torch

    total = torch.cuda.get_device_properties(device).total_memory
    plan.notes.append(f"GPU memory: {show_bytes(total)} on {torch.cuda.get_device_name(device)}")
    least = largest(
        gpu_needs(plan.drawing, plan.params, *plan.module, plan.models[2].parameters, single=True)
    )
    if least > total:
        plan.refusals.append(
            f"GPU memory: {show_bytes(least)} are needed even one picture at a time, the device has"
            f" {show_bytes(total)}; set diffusion.dtype to float16, or take a smaller model"
        )
    elif (need := largest(plan.gpu)) > total:
        plan.notes.append(
            f"GPU memory does not suffice for the batches asked for "
            f"({show_bytes(need)}): they are halved as the run goes"
        )


def ram_bytes() -> int:
    """Main memory of this machine, or of the container it runs in."""
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limit = CGROUP_LIMIT.read_text().strip() if CGROUP_LIMIT.is_file() else "max"
    return min(machine, int(limit)) if limit.isdigit() else machine


def folder_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _by_name(needs: Sequence[Need], name: str) -> int:
    return next((n.bytes or 0 for n in needs if n.name == name), 0)


def show_bytes(size: float | None) -> str:
    if size is None:
        return "unknown"
    for unit, scale in (("GB", 1e9), ("MB", 1e6)):
        if size >= scale:
            return f"{size / scale:.1f} {unit}"
    return f"{size / 1e3:.0f} KB"


def show_seconds(seconds: float | None) -> str:
    if seconds is None:
        return "unknown"
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def page(plan: Plan) -> str:
    """The plan as text."""
    counts, prompts = plan.counts, plan.params.prompts
    lines = [
        f"plan of profile {plan.params.profile}: {counts.train} training pictures, "
        f"{counts.sim} to judge, {counts.synthetic} synthetic (prompts.synthetic_one "
        f"{prompts.synthetic_one}, synthetic_two {prompts.synthetic_two})",
        "",
        "models",
    ]
    for found in plan.models:
        lines.append(
            f"  {found.setting:20} {show_bytes(found.bytes):>9}  {found.state:16} {found.name}"
        )
    for title, needs, total in (
        ("disk, when all is made", plan.disk, sum(n.bytes or 0 for n in plan.disk)),
        ("GPU memory at its peak (on a CPU: part of main memory)", plan.gpu, None),
        ("main memory at its peak", plan.ram, None),
    ):
        if needs:
            lines += ["", title]
            lines += [f"  {n.name:20} {show_bytes(n.bytes):>9}  {n.how}" for n in needs]
        if needs and total is not None:
            lines.append(f"  {'together':20} {show_bytes(total):>9}")
    lines += ["", *_time_lines(plan), "", *plan.notes]
    lines += [f"refused: {reason}" for reason in plan.refusals]
    return "\n".join(lines)


def _time_lines(plan: Plan) -> list[str]:
    if plan.probe is None:
        return ["time: not measured (no probe)"]
    probe = plan.probe
    lines = [
        f"time on {probe.device} (probe of {probe.seconds:.0f} s, {probe.batch} pictures at "
        "once; at most: nothing rejected, no training stopped early)"
    ]
    lines += [f"  {name:20} {show_seconds(value):>9}" for name, value in plan.seconds.items()]
    known = [value for value in plan.seconds.values() if value is not None]
    more = "" if len(known) == len(plan.seconds) else " and what is unknown"
    lines.append(f"  {'together':20} {show_seconds(sum(known)):>9}{more}")
    lines += [f"  not measured: {setting}: {why}" for setting, why in probe.missed.items()]
    return lines


def main(arguments: list[str]) -> int:
    parser = make_parser("python -m ml plan", __doc__)
    add_profile(parser)
    parser.add_argument(
        "--images",
        type=number(int, 1, 10_000_000),
        help="synthetic pictures, instead of the profile's",
    )
    parser.add_argument("--no-probe", action="store_true", help="measure nothing, load no model")
    add_root(parser)
    chosen = parser.parse_args(arguments)
    params = load_params(chosen.profile)
    if chosen.images is not None:
        params = with_images(params, chosen.images)
    plan = make_plan(params, Workspace(chosen.root, params.profile), probe=not chosen.no_probe)
    print(page(plan))
    return RESOURCES if plan.refusals else DONE
