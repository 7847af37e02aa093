"""Protocol II's published table: which segmenters, which scores, and their titles.

Not here: the scores (`ml.metrics.iou`). Plain names, so that a page loads without torch.
"""

COLUMNS = ("seen", "unseen", "harmonic", "background")
"""Keys of the scores, mIoU in percent, in the order of every table."""
SEGMENTERS = {
    "synthetic": "trained on synthetic pictures",
    "real_upper_bound": "bound: real pictures, true labels",
}
"""Key in the facts of benchmark_scores -> title. Without real training labels there is no bound."""
