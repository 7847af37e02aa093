"""Makes the plan of a run: counts, models, needs, hours and whether they fit."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from ml.cli.planning.counts import counts_of
from ml.cli.planning.disk import disk_needs
from ml.cli.planning.drawing import drawing_of
from ml.cli.planning.grounding_size import grounding_size
from ml.cli.planning.hours import Figures, stage_seconds
from ml.cli.planning.machine import count_gpus, find_profile_device, folder_bytes
from ml.cli.planning.memory import gpu_needs, kept_bytes, ram_needs
from ml.cli.planning.models import find_models
from ml.cli.planning.need import Need
from ml.cli.planning.plan import Plan
from ml.cli.planning.verdicts import judge_data, judge_disk, judge_labels, judge_memory
from ml.cli.planning.workers import find_sharing
from ml.pipeline.workspace import Workspace
from ml.settings.params import Params
from ml.words.prompts import check
from ml.words.text_limit import find_limit
from ml.words.texts import read_texts
from ml.words.vocabulary import Vocabulary, load_vocabulary

if TYPE_CHECKING:
    import torch


def make_plan(params: Params, workspace: Workspace, *, probe: bool = True) -> Plan:
    """Plans a run. Raises ValueError for settings that the first stage would refuse."""
    vocabulary = load_vocabulary(params.vocabulary)
    check(vocabulary, params.prompts)
    drawing = params.diffusion
    limit = find_limit(workspace.model(drawing.model), drawing.revision, drawing.t5_tokens)
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
    judge_data(plan, workspace)
    judge_labels(plan, workspace)
    device = find_profile_device(plan)
    if probe and device is not None:
        from ml.cli.planning.probe import run_probe

        plan.probe = run_probe(params, vocabulary, workspace, models, plan.drawing.side)
    fill_in(plan, vocabulary, device)
    judge_disk(plan, workspace)
    judge_memory(plan, device)
    return plan


def fill_in(plan: Plan, vocabulary: Vocabulary, device: "torch.device | None") -> None:
    """The needs and hours, from the probe's measurements where it made any."""
    from ml.grounding.features import CACHE_BYTES, cache_room

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
    room = CACHE_BYTES if device is None else cache_room(device)
    on_gpu = device is not None and device.type == "cuda"  # where it takes what is free
    plan.ram = ram_needs(plan.counts, plan.drawing, plan.params, 0 if on_gpu else room)
    if on_cpu:
        plan.ram = [replace(n, bytes=n.bytes + bytes_of(plan.gpu, n.name)) for n in plan.ram]
    plan.sharing = find_sharing(plan.params.executor, count_gpus(device))
    plan.gpu, plan.ram = plan.sharing.gpu(plan.gpu), plan.sharing.ram(plan.ram)
    cached = room // kept_bytes(plan.drawing, plan.params.diffusion)
    figures = plan.probe.figures if plan.probe else Figures()
    alone = stage_seconds(plan.counts, figures, plan.params, cached)
    plan.seconds = plan.sharing.seconds(alone, plan.counts, plan.params)


def bytes_of(needs: Sequence[Need], name: str) -> int:
    """Bytes of the need of this name; 0 where there is none or it is not known."""
    return next((n.bytes or 0 for n in needs if n.name == name), 0)
