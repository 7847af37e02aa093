"""The contact sheet of Protocol I: masks of four methods side by side."""

from ml.baselines.daam import threshold_masks
from ml.diffusion.loading import load_pipeline
from ml.grounding.features import FeatureSource
from ml.grounding.validation import predict_masks
from ml.images.contact_sheet import contact_sheet, spread
from ml.studies.baselines import make_baselines
from ml.studies.modules import load_module
from ml.studies.protocol_one_methods import spec_of
from ml.studies.study_run import StudyRun
from ml.studies.training_sets import judged_pictures
from ml.words.vocabulary import load_vocabulary

SHEET = 8  # pictures
ON_THE_SHEET = ("seeded", "paper")
"""Whose modules it shows, of the first split."""


def draw_sheet(run: StudyRun) -> None:
    """Four tiles a picture: ours, the paper's module, DAAM, the detector."""
    split = run.size.splits[0]
    vocabulary, pipe = load_vocabulary(split), load_pipeline(run.diffusion)
    records = [r for r in judged_pictures(run) if r.whole]
    two = [r for r in records if len(r.words) == 2 and set(r.entities) <= set(vocabulary.unseen)]
    shown = [(two or records)[i] for i in spread(len(two or records), SHEET)]
    batch = FeatureSource(pipe, shown, [r.evidence for r in shown]).batch(range(len(shown)))
    found = [
        predict_masks(load_module(run, spec_of(method, split), 0), batch) for method in ON_THE_SHEET
    ]
    threshold = float(make_baselines(run, split).query("method == 'daam'").threshold.iloc[0])
    images, masks, captions = [], [], []
    for i, record in enumerate(shown):
        n = len(record.words)
        tiles = {
            "ours": found[0][i][:n],
            "paper's": found[1][i][:n],
            "DAAM": threshold_masks(record.daam, record.size, threshold),
            "detector": record.masks,
        }
        for name, own in tiles.items():
            images.append(record.image)
            masks.append(own)
            captions.append(f"{name}: {' + '.join(record.words)}")
    contact_sheet(images, masks, captions, run.folder / "sheets" / "protocol_one.jpg", columns=8)
