"""Training steps beside other work, by what torch's threads do while they wait for one another.

    python -m benchmarks.threads [--steps 30] [--repeats 4]

Each measurement is a process of its own that trains the micro U-Net: alone, and beside a busy
process on each core. Prints steps a second, the best of the repeats (what else runs on the machine
can only take from it), the slowest, and the ratio of the best to the first row's. The settings take
turns, so that a change of the machine's load falls on all of them.
"""

import argparse
import os
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

from ml.arguments import number
from ml.errors import EXIT_CODES, exit_path
from ml.settings.profile import ROOT

SETTINGS: dict[str, dict[str, str]] = {
    "spinning, OpenMP's default": {"GOMP_SPINCOUNT": "300000"},
    "sleeping at once": {"GOMP_SPINCOUNT": "0"},
    "looking 1,000 times, as we start it": {},
}
"""Environment of the training process."""
OURS = ("OMP_NUM_THREADS", "GOMP_SPINCOUNT", "OMP_WAIT_POLICY")  # the last two are set by `ml`
TRAIN = """
import sys, time
from benchmarks.training_speed import AttnProcessor, make_unet
from ml.foundation import diffusion_model, train_diffusion
import torch
torch.set_num_threads(int(sys.argv[2]))
unet, alpha_bar = make_unet(2, AttnProcessor), diffusion_model.alphas_cumprod()
optimizer = torch.optim.AdamW(unet.parameters(), lr=1e-4, fused=True)
x_0, noise = torch.randn(2, 8, 6, 16, 16)
text, t = torch.randn(8, 24, diffusion_model.TEXT_WIDTH), torch.arange(8) * 120
for step in range(-2, int(sys.argv[1])):
    if step == 0:
        started = time.perf_counter()
    train_diffusion.diffusion_loss(unet, text, x_0, noise, t, alpha_bar).backward()
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
print(int(sys.argv[1]) / (time.perf_counter() - started))
"""


def steps_a_second(own: dict[str, str], steps: int) -> float:
    """Of one training process with these variables, with as many threads as there are cores."""
    clean = {k: v for k, v in os.environ.items() if k not in OURS}
    command = [sys.executable, "-c", TRAIN, str(steps), str(os.cpu_count())]
    done = subprocess.run(
        command, env=clean | own, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True
    )
    return float(done.stdout)


@contextmanager
def busy_cores(count: int) -> Iterator[None]:
    """So many processes that do nothing but compute, for as long as the block lasts."""
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for process in busy:
            process.kill()
            process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXIT_CODES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=number(int, 1, 10_000), default=30, help="of a measurement")
    parser.add_argument("--repeats", type=number(int, 1, 1000), default=4)
    chosen = parser.parse_args()
    cores = os.cpu_count() or 1
    for title, busy in (("alone", 0), (f"beside {cores} busy processes", cores)):
        load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
        print(f"{title}, {cores} cores; the machine's load before: {load}", flush=True)
        found: defaultdict[str, list[float]] = defaultdict(list)
        with busy_cores(busy):
            for _ in range(chosen.repeats):
                for name, own in SETTINGS.items():
                    found[name].append(steps_a_second(own, chosen.steps))
                    time.sleep(0.2)
        first = max(found[next(iter(SETTINGS))])
        for name, speeds in found.items():
            print(
                f"  {name:28} {max(speeds):6.2f} steps/s (slowest {min(speeds):.2f})"
                f"  {max(speeds) / first:5.2f}x",
                flush=True,
            )


if __name__ == "__main__":
    sys.exit(exit_path(main)())
