"""The engine runs what the manifest promises, on the provider that it says."""

import json

import numpy as np
import onnx
import pytest

from pipeline import engine as engines
from pipeline.bundle import open_bundle, sha256
from pipeline.engine import BEST_BATCH, Engine, encoded, score, scored
from pipeline.errors import BundleCorrupt, BundleError
from pipeline.prepared import Coverage, MediaFacts, PreparedClip, PreparedTrack, Quality
from pipeline.runtime import CPU, CUDA, cuda_options
from tests.bundles import expected_scores, tiny_bundle

MEDIA = MediaFacts("00", 1, "mp4", "h264", 64, 64, 1.0, 25.0, 25, 25)
QUALITY = Quality(100, 100, 0.5, 0, 0.9)


@pytest.fixture
def path(tmp_path):
    return tiny_bundle(tmp_path / "tiny")


def resealed(path, **changes):
    """The bundle with a changed manifest and digests that fit."""
    at = path / "manifest.json"
    manifest = json.loads(at.read_text()) | changes
    manifest["files"] = {name: sha256(path / name) for name in manifest["files"]}
    at.write_text(json.dumps(manifest))
    return open_bundle(path)


def clip_of(*lengths):
    rng = np.random.default_rng(0)
    tracks = []
    for n in lengths:
        samples = rng.integers(0, 256, (n, 1, 32, 32, 3), dtype=np.uint8)
        times = np.arange(n, dtype=np.float32)
        boxes = np.array([[0, 0, 0, 9, 9]], np.float32)
        tracks.append(
            PreparedTrack(
                track=len(tracks),
                samples=samples,
                start_s=times,
                end_s=times,
                boxes=boxes,
                quality=QUALITY,
                bursts=n,
                frames_used=n,
            )
        )
    return PreparedClip(MEDIA, Coverage(1, 1, 4, False), tracks, len(tracks))


def test_scores_are_those_of_the_graphs(path):
    made = clip_of(3, 2 * BEST_BATCH[CPU] + 1)
    timing = {"decode": 1.0}
    scores = score(Engine(open_bundle(path)), made, timing)
    assert set(timing) == {"decode", "encode", "temporal"}
    for track, found in zip(made.tracks, scores, strict=True):
        steps, pooled = expected_scores(track.samples)
        np.testing.assert_allclose(found.steps, steps, atol=1e-5)
        np.testing.assert_allclose(found.pooled, pooled, atol=1e-5)


def test_sequences_that_share_a_run_score_as_alone(path):
    engine = Engine(open_bundle(path))
    sequences = encoded(engine, clip_of(3, 7, 1, 4, 2))
    together, alone = scored(engine, sequences, at_once=4), scored(engine, sequences)
    assert [s.steps.shape for s in together] == [(n, 2) for n in (3, 7, 1, 4, 2)]
    for a, b in zip(together, alone, strict=True):
        np.testing.assert_allclose(a.steps, b.steps, atol=1e-6)
        np.testing.assert_allclose(a.pooled, b.pooled, atol=1e-6)


def test_the_provider_is_read_from_the_live_session(path):
    assert Engine(open_bundle(path), provider="cpu").provider == CPU


def test_requiring_an_absent_device_fails(path, monkeypatch):
    monkeypatch.setattr("pipeline.engine.ort.get_available_providers", lambda: [CPU])
    with pytest.raises(BundleError, match="CUDA is required"):
        Engine(open_bundle(path), provider="require")
    assert Engine(open_bundle(path), provider="prefer").provider == CPU


class Live:
    """A session that came up on the provider it was asked for, or did not."""

    def __init__(self, path, options, *, providers):
        self.threads = options.intra_op_num_threads
        self._session = INFERENCE(path, options, providers=[CPU])
        self.wanted = providers
        self.provider = providers[0] if providers == [CPU] else self.fate(path, providers[0])
        self.fallback = True

    def fate(self, path, wanted):
        return wanted[0]

    def get_providers(self):
        return [self.provider, CPU]

    def disable_fallback(self):
        self.fallback = False

    def __getattr__(self, name):
        return getattr(self._session, name)


INFERENCE = engines.ort.InferenceSession


@pytest.fixture
def cuda(monkeypatch):
    """A machine that says it has CUDA. Keeps the sessions that are opened."""
    opened = []

    class Kept(Live):
        def __init__(self, *given, **named):
            super().__init__(*given, **named)
            opened.append(self)

    monkeypatch.setattr(engines.ort, "InferenceSession", Kept)
    monkeypatch.setattr(engines.ort, "get_available_providers", lambda: [CUDA, CPU])
    monkeypatch.setattr(engines.ort, "preload_dlls", lambda: opened.append("libraries"))
    return Kept, opened


@pytest.mark.parametrize("provider", ["prefer", "require"])
def test_both_graphs_are_asked_to_run_on_cuda(path, cuda, provider):
    _, opened = cuda
    engine = Engine(open_bundle(path), provider=provider, threads=3, gpu_memory_bytes=2**30)
    assert (engine.provider, engine.threads) == (CUDA, 3)
    assert opened[0] == "libraries"
    assert len(opened) == 3
    for session in opened[1:]:
        assert session.wanted == [(CUDA, cuda_options(2**30)), CPU]
        assert session.fallback is False
        assert session.threads == 3


def test_cuda_is_not_touched_where_the_cpu_is_asked_for(path, cuda):
    _, opened = cuda
    assert Engine(open_bundle(path), provider="cpu").provider == CPU
    assert [s.wanted for s in opened] == [[CPU], [CPU]]


@pytest.mark.parametrize("lost", ["encoder.onnx", "temporal.onnx"])
def test_a_graph_that_does_not_come_up_on_cuda_is_noticed(path, cuda, lost):
    kept, opened = cuda
    kept.fate = lambda self, at, wanted: CPU if at.endswith(lost) else CUDA
    with pytest.raises(BundleError, match="CUDA is required, but the session runs on CPU"):
        Engine(open_bundle(path), provider="require")
    opened.clear()
    assert Engine(open_bundle(path), provider="prefer").provider == CPU
    assert [s.provider for s in opened[-2:]] == [CPU, CPU]


@pytest.mark.parametrize(
    ("shape", "cpu", "gpu"),
    [
        ({"kind": "aligned"}, 16, 64),
        ({"kind": "native", "grid": 3}, 18, 72),
        ({"kind": "native", "grid": 6}, 36, 72),
    ],
)
def test_the_best_batch_holds_whole_bursts(tmp_path, shape, cpu, gpu, cuda):
    bundle = open_bundle(tiny_bundle(tmp_path / "shaped", **shape))
    assert Engine(bundle, provider="cpu").best_batch == cpu
    assert Engine(bundle, provider="prefer").best_batch == gpu


@pytest.mark.parametrize(
    "changes",
    [
        {"feature_size": 4},
        {"crop": {"kind": "aligned", "side": 64, "frames": 1}},
        {"crop": {"kind": "native", "side": 32, "frames": 2}},
    ],
)
def test_a_graph_that_does_not_fit_its_manifest_is_refused(path, changes):
    with pytest.raises(BundleCorrupt, match="not as its manifest says"):
        Engine(resealed(path, **changes))


def test_a_graph_with_other_inputs_is_refused(path):
    model = onnx.load(path / "encoder.onnx")
    model.graph.input[0].name = "images"
    model.graph.node[0].input[0] = "images"
    onnx.save(model, path / "encoder.onnx")
    with pytest.raises(BundleCorrupt, match="images"):
        Engine(resealed(path))


def test_a_file_that_is_no_graph_is_refused(path):
    (path / "encoder.onnx").write_bytes(b"not a graph")
    with pytest.raises(BundleCorrupt, match=r"encoder\.onnx can not be loaded"):
        Engine(resealed(path))
