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
        """uint8 (n,H,W,3) RGB -> uint8 (n,H,W) labels, 0 background.

        Raises MlflowException for pictures of nothing but 0 and 1: MLflow casts a request's numbers
        to uint8, and pixels in 0..1 would be answered for as black ones.
        """
        from ml.segmenters.prediction import predict

        if model_input.size and model_input.max() <= 1:
            raise mlflow.MlflowException.invalid_parameter_value(
                "expected pixels from 0 to 255, got none above 1 in any picture: multiply pixels "
                "in 0..1 by 255 and round them; black pictures alone show nothing"
            )
        return predict(self.model, np.ascontiguousarray(model_input, np.uint8))


mlflow.models.set_model(Segmenter())
