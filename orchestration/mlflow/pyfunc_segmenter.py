"""The code of the registered segmenter: uint8 pictures in, uint8 label maps out.

MLflow runs this file when the model is loaded (models from code); `ml` lies beside the model.
"""

import mlflow  # noqa: TID253  MLflow itself runs this file
import numpy as np


class Segmenter(mlflow.pyfunc.PythonModel):
    def load_context(self, context) -> None:
        from ml.segmenters import load_segmenter

        self.model = load_segmenter(context.artifacts["model"])

    def predict(self, context, model_input: np.ndarray, params=None) -> np.ndarray:
        """uint8 (n,H,W,3) RGB -> uint8 (n,H,W) labels, 0 background."""
        from ml.segmenters.prediction import predict

        return predict(self.model, np.ascontiguousarray(model_input, np.uint8))


mlflow.models.set_model(Segmenter())
