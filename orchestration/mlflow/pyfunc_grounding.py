"""The code of the registered grounding model: pictures and words in, a mask for every word out.

MLflow runs this file when the model is loaded (models from code); `ml` lies beside the model.
"""

import mlflow  # noqa: TID253  MLflow itself runs this file
import numpy as np
import pandas as pd


class Grounding(mlflow.pyfunc.PythonModel):
    def load_context(self, context) -> None:
        from ml.grounding.pipeline import GroundedDiffusionPipeline

        self.engine = GroundedDiffusionPipeline.from_pretrained(context.artifacts["model"]).engine

    def predict(self, context, model_input: pd.DataFrame, params=None) -> pd.DataFrame:
        """Columns `image` (PNG bytes), `words` (list) -> `masks` (list of run-length JSON).

        params: `min_presence`, below which a word gets an empty mask (`ml.grounding.presence`);
        0, the default, takes every word to be there.
        """
        from ml.images.photographs import open_picture
        from ml.images.run_lengths import encode_rle

        images = [
            open_picture(data, f"picture {row}") for row, data in enumerate(model_input["image"])
        ]
        if len(sizes := {image.shape[:2] for image in images}) > 1:
            side = self.engine.config.picture_size
            raise ValueError(
                f"expected pictures of {side}x{side}, got several sizes (height, width): "
                f"{sorted(sizes)[:5]}; resize them to {side}x{side} first"
            )
        least = (params or {}).get("min_presence") or None
        found = self.engine.ground(np.stack(images), list(model_input["words"]), min_presence=least)
        return pd.DataFrame(
            {"masks": [[encode_rle(mask) for mask in masks] for masks in found.masks]}
        )


mlflow.models.set_model(Grounding())
