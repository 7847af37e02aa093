"""The plan as text."""

from ml.cli.planning.plan import Plan


def show_bytes(size: float | None) -> str:
    """GB, MB or KB, in decimal units."""
    if size is None:
        return "unknown"
    for unit, scale in (("GB", 1e9), ("MB", 1e6)):
        if size >= scale:
            return f"{size / scale:.1f} {unit}"
    return f"{size / 1e3:.0f} KB"


def show_seconds(seconds: float | None) -> str:
    """Seconds, minutes or hours, whichever fits."""
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
    lines += ["", *time_lines(plan), *plan.sharing.lines, "", *plan.notes]
    lines += [f"refused: {reason}" for reason in (*plan.unusable, *plan.refusals)]
    return "\n".join(lines)


def time_lines(plan: Plan) -> list[str]:
    """Hours by stage, and which model could not be measured and why."""
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
