"""Whether this machine can hold the run: its data, disk, main memory and GPU.

Each function adds notes to the plan, and a reason to refuse the run where something does not fit.
"""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ml.cli.planning.machine import ram_bytes
from ml.cli.planning.memory import PROCESS_BYTES, gpu_needs
from ml.cli.planning.need import largest
from ml.cli.planning.page import show_bytes
from ml.cli.planning.plan import Plan
from ml.pipeline.workspace import Workspace
from ml.settings.sections import PHOTO_SOURCES
from ml.words.vocabulary import load_vocabulary, refuse_unlabelled

if TYPE_CHECKING:
    import torch

SPARE = 1.05
"""Free disk over what is needed: file systems slow down and fail before they are full."""


def judge_data(plan: Plan, workspace: Workspace) -> None:
    """Whether the real data of the profile is there, in its own layout."""
    benchmark = plan.params.benchmark
    if benchmark.source not in PHOTO_SOURCES:
        return
    from ml.datasets import NoSuchPart, open_source

    for part in ("test", "train"):
        try:
            open_source(benchmark, part, workspace.model(benchmark.root))
        except NoSuchPart as absent:
            plan.notes.append(f"no upper bound: {absent}")
        except ValueError as error:
            if str(error) not in plan.unusable:
                plan.unusable.append(str(error))


def judge_labels(plan: Plan, workspace: Workspace) -> None:
    """Whether the user's own pictures with masks can be used, all looked through."""
    params = plan.params
    vocabulary = load_vocabulary(params.vocabulary)
    try:
        refuse_unlabelled(vocabulary, params.triplets.labels)
        if params.triplets.labels is None:
            return
        from ml.pipeline.labelled import check_labels, open_labels

        photos = open_labels(params, workspace)
        shown = check_labels(photos, vocabulary)
    except ValueError as error:
        plan.unusable.append(str(error))
        return
    masks = ", ".join(f"{name} in {count}" for name, count in sorted(shown.items()))
    plan.notes.append(f"own pictures with masks: {len(photos.keys)} ({masks}), which judge nothing")


def judge_disk(plan: Plan, workspace: Workspace) -> None:
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


def smaller(plan: Plan, total: int) -> str:
    """What to set so that one picture at a time fits the device, else what is left to do."""
    half = "bfloat16" if "transformer" in plan.drawing.parameters else "float16"
    asked = plan.params.diffusion
    ways: list[dict[str, str | None]] = [
        {"dtype": half} if asked.dtype == "float32" else {},
        {"offload": "model"},
        {"quantise": "int8"},
        {"offload": "model", "quantise": "int8"},
        {"offload": "sequential", "quantise": None},
    ]
    changes = [
        {field: value for field, value in way.items() if value != getattr(asked, field)}
        for way in ways
    ]
    for way in filter(None, changes):
        diffusion = replace(asked, **way)  # type: ignore[arg-type]  # its fields
        params = replace(plan.params, diffusion=diffusion)
        single = gpu_needs(
            plan.drawing, params, *plan.module, plan.models[2].parameters, single=True
        )
        if (need := largest(plan.sharing.gpu(single))) <= total:
            said = " and ".join(
                f"diffusion.{field} to {value or 'null'}" for field, value in way.items()
            )
            return f"set {said} ({show_bytes(need)}, slower), or take a smaller model"
    return "take a smaller model"


def judge_memory(plan: Plan, device: "torch.device | None") -> None:
    """Main memory and, where the run has a GPU, its memory. Too large a batch is only noted."""
    total = ram_bytes()
    plan.notes.append(f"main memory: {show_bytes(total)}")
    if (need := largest(plan.ram)) > total:
        weights = (plan.ram[0].bytes or 0) - PROCESS_BYTES > total  # of drawing: no samples
        fewer = (
            "the weights alone are too large: take a smaller diffusion.model"
            if weights
            else "ask for fewer training pictures (prompts.train_*)"
        )
        plan.refusals.append(
            f"main memory: {show_bytes(need)} are needed, this machine has "
            f"{show_bytes(total)}; {fewer}, or take a larger machine"
        )
    if device is None or device.type != "cuda":
        return
    import torch

    total = torch.cuda.get_device_properties(device).total_memory
    plan.notes.append(f"GPU memory: {show_bytes(total)} on {torch.cuda.get_device_name(device)}")
    backbone = plan.models[2].parameters
    single = gpu_needs(plan.drawing, plan.params, *plan.module, backbone, single=True)
    least = largest(plan.sharing.gpu(single))
    if least > total:
        plan.refusals.append(
            f"GPU memory: {show_bytes(least)} are needed even one picture at a time, the device has"
            f" {show_bytes(total)}; {smaller(plan, total)}"
        )
    elif (need := largest(plan.gpu)) > total:
        plan.notes.append(
            f"GPU memory does not suffice for the batches asked for "
            f"({show_bytes(need)}): they are halved as the run goes"
        )
