"""Explanations through the service are those of the pipeline alone, of clips as of crops."""

import io

import pytest

from pipeline.bundle import open_bundle
from pipeline.detect.registry import open_detector
from pipeline.engine import Engine, driven, encoded, scored
from pipeline.explain import Shown, explained
from pipeline.media import Limits
from pipeline.prepare import prepare
from pipeline.verdict import decide
from service.crops import write_crops
from service.upload import CROPS_TYPE
from tests.bundles import tiny_bundle
from tests.media import face_clip
from tests.running import Running


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return face_clip(tmp_path_factory.mktemp("media") / "face.mp4", seconds=1.0)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    path = tmp_path_factory.mktemp("models")
    tiny_bundle(path / "windows", name="windows", kind="native", frames=2, grid=3, thresholds=(0.1, 0.9))
    tiny_bundle(path / "crops", name="crops", thresholds=(0.1, 0.9))
    return path


@pytest.fixture(scope="module")
def running(models, tmp_path_factory):
    one = Running(models, tmp_path_factory.mktemp("scratch"), max_faces=4, model="windows")
    one.runner.run(one.start())
    yield one
    one.runner.run(one.stop())
    one.runner.close()


@pytest.mark.parametrize("name", ["windows", "crops"])
def test_the_service_explains_as_the_pipeline_does(running, models, clip, name):
    bundle = open_bundle(models / name)
    prepared = prepare(
        clip,
        crop=bundle.manifest.crop,
        sampling=bundle.manifest.sampling,
        detector=open_detector("yunet", threads=1),
        limits=Limits(),
        max_faces=4,
    )
    engine = Engine(bundle, threads=1)
    features = encoded(engine, prepared)
    scores = scored(engine, features)
    shown = [Shown(f, t.samples) for f, t in zip(features, prepared.tracks, strict=True)]
    alone = decide(prepared, scores, bundle, explain=True)
    alone = driven(engine, explained(alone, prepared, scores, shown.__getitem__, bundle))
    expected = [f.model_dump(mode="json") for f in alone.faces]
    assert expected[0]["explanation"]["frames"][0]["grid"]

    crops = io.BytesIO()
    write_crops(crops, prepared, bundle)
    for route, content, kind in (
        ("detect", clip.read_bytes(), "video/mp4"),
        ("detect/crops", crops.getvalue(), CROPS_TYPE),
    ):
        url = f"/v1/{route}?explain=true&model={name}"
        response = running.ask("POST", url, content=content, headers={"content-type": kind})
        assert response.status_code == 200, response.text
        assert response.json()["faces"] == expected
