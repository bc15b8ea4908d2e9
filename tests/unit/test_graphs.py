"""Batches are padded little, and only to shapes that were run before the service was ready."""

import asyncio

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.bundle import open_bundle
from pipeline.engine import Engine
from service.batcher import Batcher
from service.graphs import (
    SAMPLE_PADDING,
    SEQUENCE_PADDING,
    SHORTEST_RUNG,
    STEP_PADDING,
    EncoderGraph,
    TemporalGraph,
    ladder,
    longest_sequence,
    rung,
)
from tests.bundles import tiny_bundle

BURST = 9
LONG = 30.0


class Recording:
    """An engine that keeps the shapes it was run with."""

    def __init__(self, engine):
        self._engine = engine
        self.encoded, self.judged = [], []

    def encode(self, samples):
        self.encoded.append(len(samples))
        return self._engine.encode(samples)

    def temporal(self, features, lengths):
        self.judged.append(features.shape[:2])
        return self._engine.temporal(features, lengths)


@pytest.fixture(scope="module", params=["native", "aligned"])
def engine(request, tmp_path_factory):
    """Nine windows a burst and eight bursts, as the embedded bundle; or the paper's single crops."""
    shapes = {
        "native": {"frames": 3, "grid": 3, "bursts": 8, "burst_frames": 3},
        "aligned": {"frames": 1, "bursts": 40, "burst_frames": 1},
    }
    path = tmp_path_factory.mktemp("bundle") / request.param
    return Engine(
        open_bundle(tiny_bundle(path, kind=request.param, side=16, **shapes[request.param])), threads=1
    )


@pytest.fixture
def native(tmp_path):
    bundle = open_bundle(tiny_bundle(tmp_path / "native", kind="native", side=16, frames=3, grid=3, bursts=8))
    return Recording(Engine(bundle, threads=1)), bundle.manifest


@given(
    top=st.integers(1, 600),
    bottom=st.integers(1, 16),
    padding=st.sampled_from([1 / 8, 1 / 4, 1 / 3]),
    whole=st.integers(1, 40),
)
def test_no_rung_above_the_lowest_holds_more_padding_than_its_share(top, bottom, padding, whole):
    rungs = ladder(top, bottom=bottom, padding=padding, whole=whole)
    assert rungs[0] == min(bottom, top)
    assert rungs[-1] == top
    for count in range(rungs[0], top + 1):
        found = rung(count, rungs)
        assert found - count <= padding * found
    if whole > 1:
        assert set(range(whole, top, whole)) <= {*rungs, *range(rungs[0])}


@given(top=st.integers(2, 600), padding=st.sampled_from([1 / 8, 1 / 4, 1 / 3]))
def test_there_are_no_more_rungs_than_the_share_asks_for(top, padding):
    """Leaving one out would pad the count above the rung below it by more."""
    rungs = ladder(top, padding=padding)
    for below, above in zip(rungs, rungs[2:], strict=False):
        assert above - (below + 1) > padding * above


@pytest.mark.parametrize("max_batch", [4, 18, 64, 72])
def test_whole_bursts_are_encoded_without_padding(native, max_batch):
    recording, manifest = native
    encoder = EncoderGraph(recording, manifest, max_batch=max_batch)
    sample = np.zeros((3, 16, 16, 3), np.uint8)
    bursts = list(range(BURST, max_batch + 1, BURST))
    for count in bursts:
        encoder.run([sample] * count)
    assert recording.encoded == bursts


def test_the_steps_of_native_sequences_are_whole_bursts(native):
    recording, manifest = native
    temporal = TemporalGraph(recording, manifest)
    assert temporal.steps == (9, 27, 45, 72)
    assert temporal.rungs == (1, 2, 4)


def test_the_ladders_of_the_embedded_bundle_are_short_to_warm(native):
    """Fewer samples and steps than powers of two up to 64 samples and 72 steps: 127 and 7 x 192."""
    recording, manifest = native
    EncoderGraph(recording, manifest, max_batch=18).warm()
    TemporalGraph(recording, manifest).warm()
    assert sum(recording.encoded) <= 127
    assert sum(count * steps for count, steps in recording.judged) <= 7 * 192


@given(data=st.data())
def test_random_loads_meet_only_shapes_that_were_warmed(engine, data):
    """Clips of any number of faces and bursts, cut and submitted burst by burst, whoever waits for whom."""
    manifest = engine.bundle.manifest
    burst, longest = manifest.crop.samples_per_burst, longest_sequence(manifest)
    clips = data.draw(
        st.lists(st.lists(st.integers(1, longest // burst), min_size=1, max_size=5), min_size=1, max_size=4)
    )
    recording = Recording(engine)
    encoder = EncoderGraph(recording, manifest, max_batch=engine.best_batch)
    temporal = TemporalGraph(recording, manifest)
    encoder.warm()
    temporal.warm()
    warmed, pairs = set(recording.encoded), set(recording.judged)
    recording.encoded.clear()
    recording.judged.clear()
    samples, sequences = run(clips, burst, encoder, temporal, engine.best_batch)
    assert set(recording.encoded) <= warmed
    assert set(recording.judged) <= pairs
    for real, shape in zip(samples, recording.encoded, strict=True):
        assert shape - real <= SAMPLE_PADDING * shape
    for lengths, (count, steps) in zip(sequences, recording.judged, strict=True):
        assert count - len(lengths) <= SEQUENCE_PADDING * count
        assert steps - max(lengths) <= STEP_PADDING * steps or steps == SHORTEST_RUNG
    assert sum(samples) == burst * sum(sum(tracks) for tracks in clips)
    assert sum(len(lengths) for lengths in sequences) == sum(len(tracks) for tracks in clips)


def run(clips, burst, encoder, temporal, max_batch):
    """Run clips, each a list of its tracks' bursts: items of each encoder run, lengths of each other."""
    samples, sequences = [], []
    sample = np.zeros(encoder.shape, np.uint8)

    def encode(items):
        samples.append(len(items))
        return encoder.run(items)

    def judge(items):
        sequences.append([len(i) for i in items])
        return temporal.run(items)

    async def main():
        batchers = [
            Batcher("e", encode, encoder.probe, max_batch=max_batch, max_queued=64, stall_s=LONG),
            Batcher("t", judge, temporal.probe, max_batch=temporal.rungs[-1], max_queued=64, stall_s=LONG),
        ]
        for b in batchers:
            b.start()
        deadline = asyncio.get_running_loop().time() + LONG

        async def clip(tracks):
            rows = [
                np.concatenate(
                    [
                        np.stack((await batchers[0].submit([sample] * burst, deadline=deadline)).results)
                        for _ in range(bursts)
                    ]
                )
                for bursts in tracks
            ]
            await batchers[1].submit(rows, deadline=deadline)

        await asyncio.gather(*(clip(tracks) for tracks in clips))
        for b in batchers:
            await b.stop()

    asyncio.run(main())
    return samples, sequences


def test_fill_is_the_share_of_what_the_engine_was_given(engine):
    recording = Recording(engine)
    manifest = engine.bundle.manifest
    encoder, temporal = EncoderGraph(recording, manifest, max_batch=64), TemporalGraph(recording, manifest)
    for count in (1, 61, 64):
        samples = [np.zeros(encoder.shape, np.uint8)] * count
        encoder.run(samples)
        assert encoder.fill(samples) == count / recording.encoded[-1]
    for lengths in ([9], [9, 36, 18], [36] * 4):
        sequences = [np.zeros((n, manifest.feature_size), np.float32) for n in lengths]
        temporal.run(sequences)
        rows, steps = recording.judged[-1]
        assert temporal.fill(sequences) == sum(lengths) / (rows * steps)
