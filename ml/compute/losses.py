"""The losses of a training, brought from the device and checked a few steps at a time.

To read a number of a GPU is to wait until it has done all that it was given: read after every step,
it would stand idle while the next step is prepared.
"""

import torch
from torch import Tensor

from ml.compute.weights import check_loss

CHECK_EVERY = 25
"""Steps on a GPU after which a loss that is not finite ends the training. On a CPU each is checked
as it comes, which costs nothing there."""


class Losses:
    """Losses that steps add; several processes each add the same ones, and all stop at once."""

    def __init__(self, what: str) -> None:
        """what: that has the loss, for the error."""
        self.what = what
        self._known: list[float] = []
        self._pending: list[Tensor] = []  # on the device

    def add(self, loss: Tensor) -> None:
        """loss: of one step, without gradients. Raises NotFinite for one that is not finite, of
        this step or of those since the last look."""
        self._pending.append(loss)
        if loss.device.type == "cpu" or len(self._pending) >= CHECK_EVERY:
            self._look()

    def taken(self) -> list[float]:
        """All losses since the last call, checked as in `add`."""
        self._look()
        taken, self._known = self._known, []
        return taken

    def _look(self) -> None:
        values = torch.stack(self._pending).tolist() if self._pending else []
        self._pending = []
        for value in values:
            check_loss(value, self.what)
        self._known += values
