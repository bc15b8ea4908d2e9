"""Data sets as their makers lay them out, in miniature: what is read, and what is said of a wrong layout."""

import csv
import json
from pathlib import Path

import pytest

from training.datasets import Dataset, DatasetError, read_dataset


def touch(root: Path, *files: str) -> Path:
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).touch()
    return root


def by_file(data: Dataset) -> dict[str, object]:
    return {r.file: r for r in data.records}


SWAPS = "manipulated_sequences"
REAL = "original_sequences/youtube"


@pytest.fixture
def faceforensics(tmp_path):
    touch(
        tmp_path,
        *(f"{REAL}/c23/videos/{n}.mp4" for n in ("000", "003", "033", "097")),
        f"{REAL}/raw/videos/000.mp4",
        f"{REAL}/c40/videos/003.mp4",
        f"{REAL}/c40/images/003/0000.png",
        "original_sequences/actors/c23/videos/01__exit_phone_room.mp4",
        f"{SWAPS}/Deepfakes/c23/videos/000_003.mp4",
        f"{SWAPS}/Deepfakes/c23/videos/033_097.mp4",
        f"{SWAPS}/Deepfakes/c23/masks/033_097.mp4",
        f"{SWAPS}/Deepfakes/raw/videos/000_003.mp4",
        f"{SWAPS}/Face2Face/c40/videos/003_000.mp4",
        f"{SWAPS}/FaceShifter/c23/videos/097_033.mp4",
        f"{SWAPS}/DeepFakeDetection/c23/videos/01_02__exit_phone_room__YVGY8LOK.mp4",
    )
    for name, pairs in {"train": [["000", "003"]], "val": [], "test": [["033", "097"]]}.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(pairs))
    return tmp_path


def test_faceforensics_knows_target_and_source_of_each_method(faceforensics):
    records = by_file(read_dataset("faceforensics", faceforensics))
    assert len(records) == 9
    swap = records[f"{SWAPS}/Deepfakes/c23/videos/033_097.mp4"]
    assert (swap.fake, swap.method, swap.split) == (True, "Deepfakes", "test")
    assert swap.identity == swap.source == "faceforensics:033+faceforensics:097"
    assert swap.original == f"{REAL}/c23/videos/033.mp4"
    assert records[f"{SWAPS}/FaceShifter/c23/videos/097_033.mp4"].original == f"{REAL}/c23/videos/097.mp4"
    real = records[f"{REAL}/c23/videos/000.mp4"]
    assert (real.fake, real.method, real.split, real.identity) == (False, "", "train", "faceforensics:000")


def test_faceforensics_actors_play_in_several_scenes(faceforensics):
    records = by_file(read_dataset("faceforensics", faceforensics))
    swap = records[f"{SWAPS}/DeepFakeDetection/c23/videos/01_02__exit_phone_room__YVGY8LOK.mp4"]
    actor = records["original_sequences/actors/c23/videos/01__exit_phone_room.mp4"]
    assert swap.identity == "faceforensics:actor01+faceforensics:actor02"
    assert (actor.identity, actor.source) == ("faceforensics:actor01", swap.source)
    assert swap.original == actor.file
    assert (swap.split, actor.split) == ("", "")


@pytest.mark.parametrize(
    ("compression", "files"),
    [
        ("c0", {f"{REAL}/raw/videos/000.mp4", f"{SWAPS}/Deepfakes/raw/videos/000_003.mp4"}),
        ("raw", {f"{REAL}/raw/videos/000.mp4", f"{SWAPS}/Deepfakes/raw/videos/000_003.mp4"}),
        ("c40", {f"{REAL}/c40/videos/003.mp4", f"{SWAPS}/Face2Face/c40/videos/003_000.mp4"}),
    ],
)
def test_faceforensics_is_read_at_one_compression(faceforensics, compression, files):
    assert set(by_file(read_dataset("faceforensics", faceforensics, compression=compression))) == files


def test_a_swap_across_official_splits_has_none(faceforensics):
    touch(faceforensics, f"{SWAPS}/FaceSwap/c23/videos/000_097.mp4")
    records = by_file(read_dataset("faceforensics", faceforensics))
    assert records[f"{SWAPS}/FaceSwap/c23/videos/000_097.mp4"].split == ""


def test_faceforensics_says_what_is_missing(faceforensics, tmp_path_factory):
    with pytest.raises(DatasetError, match="c1': there are c0"):
        read_dataset("faceforensics", faceforensics, compression="c1")
    (faceforensics / "val.json").unlink()
    with pytest.raises(
        DatasetError, match=r"test\.json, train\.json|train\.json, test\.json but not val\.json"
    ):
        read_dataset("faceforensics", faceforensics)
    other = touch(tmp_path_factory.mktemp("other"), f"{REAL}/c40/videos/000.mp4")
    with pytest.raises(DatasetError, match="has no folder manipulated_sequences"):
        read_dataset("faceforensics", other)
    (other / SWAPS).mkdir()
    with pytest.raises(DatasetError, match=r"no video at compression c23; it has c40"):
        read_dataset("faceforensics", other)


def test_faceforensics_refuses_names_and_lists_that_are_not_its_own(faceforensics):
    (faceforensics / "val.json").write_text('{"000": "003"}')
    with pytest.raises(DatasetError, match=r"val\.json is not a list of pairs"):
        read_dataset("faceforensics", faceforensics)
    (faceforensics / "val.json").write_text("[")
    with pytest.raises(DatasetError, match=r"val\.json can not be read"):
        read_dataset("faceforensics", faceforensics)
    (faceforensics / "val.json").write_text("[]")
    touch(faceforensics, f"{SWAPS}/FaceSwap/c23/videos/holiday.mp4")
    with pytest.raises(DatasetError, match=r"holiday\.mp4: manipulated sequences are named 033_097\.mp4"):
        read_dataset("faceforensics", faceforensics)


@pytest.fixture
def celebdf(tmp_path):
    touch(
        tmp_path,
        "Celeb-real/id0_0000.mp4",
        "Celeb-real/id1_0000.mp4",
        "YouTube-real/00000.mp4",
        "YouTube-real/00170.mp4",
        "Celeb-synthesis/id0_id1_0000.mp4",
        "Celeb-synthesis/id1_id0_0000.mp4",
    )
    (tmp_path / "List_of_testing_videos.txt").write_text(
        "1 YouTube-real/00170.mp4\n0 Celeb-synthesis/id1_id0_0000.mp4\n1 Celeb-real/id1_0000.mp4\n"
    )
    return tmp_path


def test_celebdf_knows_target_donor_and_the_official_test(celebdf):
    records = by_file(read_dataset("celebdf", celebdf))
    swap = records["Celeb-synthesis/id0_id1_0000.mp4"]
    assert (swap.identity, swap.source) == ("celebdf:id0+celebdf:id1", "celebdf:id0_0000")
    assert (swap.fake, swap.method, swap.original) == (True, "Celeb-synthesis", "Celeb-real/id0_0000.mp4")
    assert records["Celeb-real/id0_0000.mp4"].identity == "celebdf:id0"
    strangers = [records[f"YouTube-real/{n}.mp4"].identity for n in ("00000", "00170")]
    assert len(set(strangers)) == 2
    assert {f for f, r in records.items() if r.split == "test"} == {
        "YouTube-real/00170.mp4",
        "Celeb-synthesis/id1_id0_0000.mp4",
        "Celeb-real/id1_0000.mp4",
    }
    assert {r.split for r in records.values()} == {"train", "test"}


def test_celebdf_without_its_list_has_no_official_split(celebdf):
    (celebdf / "List_of_testing_videos.txt").unlink()
    assert {r.split for r in read_dataset("celebdf", celebdf).records} == {""}


def test_celebdf_may_lie_in_folders_named_videos(celebdf):
    for folder in ("Celeb-real", "YouTube-real", "Celeb-synthesis"):
        (celebdf / folder / "videos").mkdir()
        for clip in (celebdf / folder).glob("*.mp4"):
            clip.rename(clip.parent / "videos" / clip.name)
    (celebdf / "YouTube-real").rename(celebdf / "Youtube-real")
    data = read_dataset("celebdf", celebdf)
    assert sum(r.split == "test" for r in data.records) == 3
    assert (celebdf / data.records[0].file).exists()


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("2 Celeb-real/id0_0000.mp4", "line 4: '2 Celeb-real"),
        ("0 Celeb-real/id0_0000.mp4", "wrong way round"),
    ],
)
def test_celebdf_refuses_a_list_that_is_not_its_own(celebdf, line, words):
    with (celebdf / "List_of_testing_videos.txt").open("a") as f:
        f.write(f"{line}\n")
    with pytest.raises(DatasetError, match=words):
        read_dataset("celebdf", celebdf)


def test_celebdf_reports_what_its_list_names_and_the_disk_lacks(celebdf):
    (celebdf / "YouTube-real/00170.mp4").unlink()
    data = read_dataset("celebdf", celebdf)
    assert data.absent == ["YouTube-real/00170.mp4"]
    assert sum(r.split == "test" for r in data.records) == 2


def test_celebdf_refuses_a_list_that_names_none_of_its_clips(celebdf):
    (celebdf / "List_of_testing_videos.txt").write_text("1 YouTube-real/00999.mp4\n")
    with pytest.raises(DatasetError, match=r"List_of_testing_videos\.txt names no clip that is on disk"):
        read_dataset("celebdf", celebdf)


def test_celebdf_refuses_a_list_that_is_no_text(celebdf):
    (celebdf / "List_of_testing_videos.txt").write_bytes(b"1 YouTube-real/\xff\xfe.mp4\n")
    with pytest.raises(DatasetError, match=r"List_of_testing_videos\.txt can not be read"):
        read_dataset("celebdf", celebdf)


def test_celebdf_says_what_is_missing(celebdf):
    touch(celebdf, "Celeb-synthesis/id0_0000.mp4")
    with pytest.raises(DatasetError, match=r"named like id0_id1_0000\.mp4"):
        read_dataset("celebdf", celebdf)
    (celebdf / "Celeb-synthesis").rename(celebdf / "fakes")
    with pytest.raises(DatasetError, match="has no folder Celeb-synthesis"):
        read_dataset("celebdf", celebdf)


def dfdc(root: Path, metadata: dict[str, dict[str, str]], part: str = "dfdc_train_part_0") -> Path:
    touch(root, *(f"{part}/{name}" for name in metadata))
    (root / part / "metadata.json").write_text(json.dumps(metadata))
    return root


PART = {
    "aa.mp4": {"label": "REAL", "split": "train", "original": None},
    "bb.mp4": {"label": "FAKE", "split": "train", "original": "aa.mp4"},
    "cc.mp4": {"label": "FAKE", "split": "train", "original": "zz.mp4"},
}


def test_dfdc_ties_fakes_to_their_originals_across_parts(tmp_path):
    dfdc(tmp_path, PART)
    dfdc(
        tmp_path, {"dd.mp4": {"label": "FAKE", "split": "train", "original": "aa.mp4"}}, "x/dfdc_train_part_1"
    )
    (tmp_path / "dfdc_train_part_0/cc.mp4").unlink()
    data = read_dataset("dfdc", tmp_path)
    records = by_file(data)
    assert data.mixed
    assert data.absent == ["dfdc_train_part_0/cc.mp4"]
    assert set(records) == {f"dfdc_train_part_0/{n}.mp4" for n in ("aa", "bb")} | {
        "x/dfdc_train_part_1/dd.mp4"
    }
    assert {r.source for r in records.values()} == {r.identity for r in records.values()} == {"dfdc:aa.mp4"}
    assert {r.original for r in records.values() if r.fake} == {"dfdc_train_part_0/aa.mp4"}
    assert {r.split for r in records.values()} == {""}


def test_dfdc_keeps_a_split_that_parts_something(tmp_path):
    part = {"aa.mp4": {"label": "REAL", "split": "test"}, "bb.mp4": {"label": "REAL", "split": "train"}}
    assert [r.split for r in read_dataset("dfdc", dfdc(tmp_path, part)).records] == ["test", "train"]


def test_dfdc_says_what_is_wrong(tmp_path):
    with pytest.raises(DatasetError, match=r"no metadata\.json in it or in its folders"):
        read_dataset("dfdc", tmp_path)
    dfdc(tmp_path, {"aa.mp4": {"label": "fake"}})
    with pytest.raises(DatasetError, match=r"the label of aa\.mp4 is neither FAKE nor REAL"):
        read_dataset("dfdc", tmp_path)
    dfdc(tmp_path, {"aa.mp4": {"label": ["FAKE"]}})
    with pytest.raises(DatasetError, match=r"the label of aa\.mp4 is neither FAKE nor REAL"):
        read_dataset("dfdc", tmp_path)
    dfdc(tmp_path, {})
    with pytest.raises(DatasetError, match="holds no clip of dfdc"):
        read_dataset("dfdc", tmp_path)


@pytest.mark.parametrize("name", ["/etc/passwd", "../outside.mp4", "a/../../outside.mp4", "", "."])
def test_dfdc_refuses_names_of_files_outside_of_a_part(tmp_path, name):
    part = tmp_path / "data" / "dfdc_train_part_0"
    touch(tmp_path, "outside.mp4", "data/outside.mp4", "data/dfdc_train_part_0/aa.mp4")
    (part / "metadata.json").write_text(json.dumps({"aa.mp4": {"label": "REAL"}, name: {"label": "REAL"}}))
    with pytest.raises(DatasetError, match=r"metadata\.json: .* is not a path below its folder"):
        read_dataset("dfdc", tmp_path / "data")


def table(
    root: Path, *rows: dict[str, str], columns: str = "file,label,identity,source,split,method"
) -> Path:
    for row in rows:
        if row["file"] and row["file"] != "gone.mp4":
            touch(root, row["file"])
    path = root / "clips.csv"
    with path.open("w", newline="") as f:
        writer = csv.DictWriter(f, columns.split(","), extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    return path


def test_a_table_describes_any_footage(tmp_path):
    path = table(
        tmp_path,
        {
            "file": "b/x.mp4",
            "label": "fake",
            "identity": "ann+bob",
            "source": "s1",
            "split": "test",
            "method": "m",
        },
        {"file": "a.mp4", "label": "Real", "identity": "", "source": "", "method": "ignored"},
        {"file": "gone.mp4", "label": "real", "identity": "", "source": ""},
        {"file": "c.mp4", "label": "real", "identity": "", "source": ""},
    )
    data = read_dataset("table", path)
    assert [r.file for r in data.records] == ["a.mp4", "b/x.mp4", "c.mp4"]
    assert data.absent == ["gone.mp4"]
    assert data.root == tmp_path
    a, x, c = data.records
    assert (x.identity, x.source, x.split, x.method) == ("ann+bob", "s1", "test", "m")
    assert a.method == ""
    assert a.identity != c.identity
    assert a.source != c.source


def test_a_table_needs_no_optional_column(tmp_path):
    row = {"file": "a.mp4", "label": "fake", "identity": "i", "source": "s"}
    (record,) = read_dataset("table", table(tmp_path, row, columns="file,label,identity,source")).records
    assert (record.split, record.method) == ("", "")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"label": "maybe"}, "row 2: label is 'maybe'"),
        ({"split": "measure"}, "row 2: split is 'measure'"),
        ({"file": "../a.mp4"}, "row 2: file is '../a.mp4'"),
        ({"file": ""}, "row 2: file is ''"),
        ({"file": "."}, "row 2: file is '.'"),
    ],
)
def test_a_table_names_its_wrong_row(tmp_path, change, words):
    row = {"file": "a.mp4", "label": "real", "identity": "i", "source": "s", "split": ""} | change
    with pytest.raises(DatasetError, match=words):
        read_dataset("table", table(tmp_path, row))


def test_a_table_says_what_else_is_wrong(tmp_path):
    row = {"file": "a.mp4", "label": "real", "identity": "i", "source": "s"}
    with pytest.raises(DatasetError, match="has no column identity, source"):
        read_dataset("table", table(tmp_path, row, columns="file,label"))
    with pytest.raises(DatasetError, match=r"row 3: a\.mp4 is listed twice"):
        read_dataset("table", table(tmp_path, row, row))
    with pytest.raises(DatasetError, match="is not a CSV file"):
        read_dataset("table", tmp_path)
    with pytest.raises(DatasetError, match="does not exist"):
        read_dataset("table", tmp_path / "none.csv")
    with pytest.raises(DatasetError, match="unknown data set 'ffhq': there are faceforensics"):
        read_dataset("ffhq", tmp_path)
