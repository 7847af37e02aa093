"""The champions behind `mlflow models serve`, as docs/promote.md says it: a request over HTTP is
answered as the model itself answers."""

import base64
import json
import os
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from ml.images.png import encode_png
from ml.segmenters import load_segmenter
from ml.segmenters.prediction import predict
from tests.builders.servers import free_port, started, wait_until
from tests.orchestration.test_registry import promoted, scored  # noqa: F401  fixtures

pytestmark = pytest.mark.slow


@contextmanager
def served(model: str, store: str, folder: Path) -> Iterator[str]:
    """The address at which a model's server answers."""
    port = str(free_port())
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"  # MLflow starts uvicorn by name
    url, env = f"http://127.0.0.1:{port}", os.environ | {"MLFLOW_TRACKING_URI": store, "PATH": path}
    where = ("--env-manager", "local", "-h", "127.0.0.1", "-p", port, "--workers", "1")
    with started(
        "mlflow", "models", "serve", "-m", model, *where, env=env, folder=folder
    ) as server:
        wait_until(lambda: bool(urllib.request.urlopen(f"{url}/ping", timeout=9)), server)
        yield f"{url}/invocations"


def ask(url: str, question: dict) -> dict:
    body = json.dumps(question).encode()
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    return json.loads(urllib.request.urlopen(request, timeout=300).read())


def test_the_segmenter_answers_as_itself(promoted, tmp_path):  # noqa: F811
    images = np.random.default_rng(3).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    store = f"sqlite:///{promoted.root}/mlflow.db"
    with served("models:/segmenter-ci@champion", store, tmp_path) as url:
        answer = ask(url, {"inputs": images.tolist()})["predictions"]
        with pytest.raises(urllib.error.HTTPError) as refused:
            ask(url, {"inputs": images[..., :2].tolist()})
    own = predict(load_segmenter(promoted.folder("segmenter") / "model"), images)
    np.testing.assert_array_equal(np.array(answer), own)
    assert refused.value.code == 400 and b"(-1, 64, 64, 3)" in refused.value.read()


def test_the_grounding_model_answers_with_a_mask_a_word(promoted, tmp_path):  # noqa: F811
    import mlflow
    import pandas as pd

    picture = np.random.default_rng(3).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    data, words = encode_png(picture), ["dog", "cat"]
    store = f"sqlite:///{promoted.root}/mlflow.db"
    with served("models:/grounding-ci@champion", store, tmp_path) as url:
        row = [base64.b64encode(data).decode(), words]
        table = {"columns": ["image", "words"], "data": [row]}
        (answer,) = ask(url, {"dataframe_split": table})["predictions"]
    mlflow.set_tracking_uri(store)
    model = mlflow.pyfunc.load_model("models:/grounding-ci@champion")
    own = model.predict(pd.DataFrame({"image": [data], "words": [words]}))
    assert len(answer["masks"]) == 2 and answer["masks"] == own["masks"][0]
