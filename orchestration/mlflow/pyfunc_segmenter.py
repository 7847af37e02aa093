"""The code of the registered segmenter: uint8 pictures in, uint8 label maps out.

MLflow runs this file when the model is loaded (models from code); `ml` lies beside the model.
"""

import mlflow  # noqa: TID253  MLflow itself runs this file
import numpy as np


class Segmenter(mlflow.pyfunc.PythonModel):
    def load_context(self, context) -> None:
        from ml.segmenters import load_segmenter

        self.model = load_segmenter(context.artifacts["model"])
        side = context.model_config["side"]
        self.shape = (-1, side, side, 3)

    def predict(self, context, model_input, params=None) -> np.ndarray:
        """uint8 (n,H,W,3) RGB, or lists of whole numbers 0..255 -> uint8 (n,H,W) labels, 0
        background."""
        from ml.segmenters.prediction import predict

        try:
            pictures = pictures_of(model_input, self.shape)
        except ValueError as error:
            if isinstance(model_input, list):  # a request's: MLflow's answer to an error of its own
                raise  # would repeat all of its numbers before the text
            raise mlflow.MlflowException.invalid_parameter_value(str(error)) from error
        return predict(self.model, pictures)


def pictures_of(given, shape: tuple[int, ...]) -> np.ndarray:
    """Pictures as uint8. shape: what they must have, -1 for any.

    Raises ValueError for anything but whole numbers 0..255 of that shape: fractions are pixels in
    0..1, of which a cast would make black pictures.
    """
    expected = f"expected pictures of shape {shape}, whole numbers 0..255 (uint8, RGB)"
    try:
        pictures = np.asarray(given)
    except ValueError as error:
        raise ValueError(
            f"{expected}, got lists of unequal lengths: ask for pictures of one size at a time"
        ) from error
    fits = pictures.ndim == len(shape) and all(
        want in (-1, side) for want, side in zip(shape, pictures.shape, strict=True)
    )
    if not fits or pictures.dtype.kind not in "iu":
        raise ValueError(
            f"{expected}, got {pictures.dtype} {pictures.shape}: multiply pixels in 0..1 by 255 "
            "and round them, resize other sizes"
        )
    if pictures.size and not 0 <= pictures.min() <= pictures.max() <= 255:
        raise ValueError(f"{expected}, got {pictures.min()}..{pictures.max()}: scale them")
    return np.ascontiguousarray(pictures, np.uint8)


mlflow.models.set_model(Segmenter())
