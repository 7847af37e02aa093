"""What can go wrong that is no defect of ours, and the exit code of each kind of it.

Whoever reads what people bring raises ValueError with a message that says what was expected, what
came, and what to do. A traceback is for a defect of ours alone.
"""


class WorkspaceBusy(RuntimeError):
    """Another run is writing in the same workspace."""


class NotFinite(RuntimeError):
    """A model gave NaN or infinite numbers: its precision or its settings do not fit it."""
