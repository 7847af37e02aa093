"""What the checks judge, by stage: `TABLES[stage](params, workspace)` gives the tables that
the stage's rules (`ml.quality.rules`) name."""

from ml.quality.benchmark_tables import benchmark_tables
from ml.quality.label_tables import synthetic_tables
from ml.quality.mask_tables import mask_tables, triplet_tables
from ml.quality.model_tables import (
    benchmark_score_tables,
    grounding_model_tables,
    grounding_score_tables,
    real_bound_tables,
    segmenter_tables,
)
from ml.quality.picture_tables import image_tables, prompt_tables

TABLES = {
    "benchmark": benchmark_tables,
    "prompts": prompt_tables,
    "images": image_tables,
    "masks": mask_tables,
    "triplets": triplet_tables,
    "grounding_model": grounding_model_tables,
    "grounding_scores": grounding_score_tables,
    "synthetic_dataset": synthetic_tables,
    "segmenter": segmenter_tables,
    "real_bound": real_bound_tables,
    "benchmark_scores": benchmark_score_tables,
}
