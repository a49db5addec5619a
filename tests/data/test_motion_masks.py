"""Motion masks: where they are looked for, how they are read, what the mapper does with them."""

from __future__ import annotations

import io
import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from maskfreevis_ext.data.mappers import YTVISDatasetMapper
from maskfreevis_ext.data.motion_masks import (
    candidate_paths,
    check_motion_masks,
    find_motion_mask,
    read_motion_mask,
)
from maskfreevis_ext.data.registration import register_ytvis_instances
from maskfreevis_ext.data.train_sets import load_train_videos
from maskfreevis_ext.data.ytvis import load_ytvis_json
from maskfreevis_ext.errors import ConfigError, DataError
from tests.helpers.videos import (
    HEIGHT,
    WIDTH,
    data_cfg,
    plain_content,
    unique_name,
    write_frames,
    write_json,
)

MASK = np.zeros((HEIGHT, WIDTH), dtype=bool)
MASK[4:10, 6:20] = True


HEAD = ("MODEL.SPATIAL_MASK.ENABLED", True)


def _video(length: int = 3, height: int = HEIGHT, width: int = WIDTH) -> dict:
    """What the reader of motion masks needs of a dataset dict."""
    return {
        "video_id": 4,
        "file_names": [f"/data/frames/set/v1/{5 * t:05d}.jpg" for t in range(length)],
        "image_root": "/data/frames",
        "height": height,
        "width": width,
        "length": length,
    }


def _image(mode: str) -> Image.Image:
    """``MASK`` in a mode of Pillow, with small values: what is above 0 moves."""
    grey = Image.fromarray(MASK.astype(np.uint8))
    opaque = Image.new("L", grey.size, 255)
    if mode == "L":
        return grey
    if mode == "1":
        return Image.fromarray(MASK)
    if mode == "P":
        image = grey.copy()
        image.putpalette([0, 0, 0, 128, 0, 0, *[7] * 750])
        return image
    if mode == "I;16":
        return Image.fromarray(MASK.astype(np.uint16) * 256)
    if mode == "LA":
        return Image.merge("LA", (grey, opaque))
    nothing = Image.new("L", grey.size)
    channels = {"RGB": (nothing, grey, nothing), "RGBA": (nothing, nothing, grey, opaque)}
    return Image.merge(mode, channels[mode])


def _write(path: str | Path, image: Image.Image | np.ndarray = MASK) -> None:
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    image.save(path)


# ---------------------------------------------------------------- where they are


def test_three_layouts_are_looked_at_in_order() -> None:
    paths = candidate_paths("/motion", "/data/frames/v1/00010.jpg", "/data/frames", 2)
    assert paths == [
        "/motion/v1/00010.png",
        "/motion/v1/sam2/mask_frames/view_0/002.png",
        "/motion/sam2/mask_frames/v1/002.png",
    ]


def test_videos_may_stand_in_folders_of_folders() -> None:
    paths = candidate_paths("/motion", "/data/frames/set/v1/a.b.png", "/data/frames/", 1234)
    assert paths == [
        "/motion/set/v1/a.b.png",
        "/motion/set/v1/sam2/mask_frames/view_0/1234.png",
        "/motion/sam2/mask_frames/set/v1/1234.png",
    ]


@pytest.mark.parametrize("layout", [0, 1, 2])
def test_mask_is_found_in_every_layout(tmp_path: Path, layout: int) -> None:
    root, video = str(tmp_path), _video()
    for index in (0, 2):
        name = video["file_names"][index]
        _write(candidate_paths(root, name, video["image_root"], index)[layout])
    assert [find_motion_mask(root, video, t) is not None for t in range(3)] == [True, False, True]
    for index in (0, 2):
        assert np.array_equal(read_motion_mask(root, video, index), MASK)


def test_first_layout_wins(tmp_path: Path) -> None:
    video = _video(1)
    paths = candidate_paths(str(tmp_path), video["file_names"][0], video["image_root"], 0)
    for path in reversed(paths):
        _write(path)
        assert find_motion_mask(str(tmp_path), video, 0) == path


def test_missing_file_gives_none_and_not_an_empty_mask(tmp_path: Path) -> None:
    assert find_motion_mask(str(tmp_path), _video(), 1) is None
    assert read_motion_mask(str(tmp_path), _video(), 1) is None


def test_folder_of_that_name_is_no_mask(tmp_path: Path) -> None:
    (tmp_path / "set" / "v1" / "00000.png").mkdir(parents=True)
    assert read_motion_mask(str(tmp_path), _video(), 0) is None


# ---------------------------------------------------------------- what is in them


@pytest.mark.parametrize(
    "mode",
    [
        *("L", "1", "P", "I;16", "RGB", "RGBA"),
        "LA",
    ],
)
def test_what_is_above_0_moves(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "set" / "v1" / "00000.png"
    _write(path, _image(mode))
    with Image.open(path) as written:
        assert written.mode == mode
    mask = read_motion_mask(str(tmp_path), _video(), 0)
    assert mask.dtype == bool
    assert np.array_equal(mask, MASK)


@pytest.mark.parametrize("value", [1, 127, 255])
def test_every_value_above_0_moves(tmp_path: Path, value: int) -> None:
    _write(tmp_path / "set" / "v1" / "00000.png", MASK.astype(np.uint8) * np.uint8(value))
    assert np.array_equal(read_motion_mask(str(tmp_path), _video(), 0), MASK)


@pytest.mark.parametrize("size", [(HEIGHT, WIDTH + 1), (WIDTH, HEIGHT), (HEIGHT // 2, WIDTH // 2)])
def test_mask_of_another_size_raises_and_names_the_file(
    tmp_path: Path, size: tuple[int, int]
) -> None:
    path = tmp_path / "set" / "v1" / "00005.png"
    _write(path, np.zeros(size, dtype=np.uint8))
    with pytest.raises(DataError) as raised:
        read_motion_mask(str(tmp_path), _video(), 1)
    for part in (str(path), str((HEIGHT, WIDTH)), str(size)):
        assert part in str(raised.value)


def _png() -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.random.RandomState(0).randint(0, 9, (HEIGHT, WIDTH)).astype(np.uint8)).save(
        stream, "PNG"
    )
    return stream.getvalue()


def _broken(kind: str) -> bytes:
    if kind == "text":
        return b"no image"
    if kind == "empty":
        return b""
    if kind == "truncated":
        return _png()[:-40]
    place = _png().index(b"IDAT")
    if kind == "flipped bytes":
        data = bytearray(_png())
        data[place + 8 : place + 12] = b"\xff\xff\xff\xff"
        return bytes(data)
    # a piece of the pixels, and a chunk after it with a name that is none
    big = io.BytesIO()
    noise = np.random.RandomState(0).randint(0, 255, (400, 400)).astype(np.uint8)
    Image.fromarray(noise).save(big, "PNG")
    data = bytearray(big.getvalue())
    start = data.index(b"IDAT")
    length = int.from_bytes(data[start - 4 : start], "big")
    assert length < len(data) - start - 100, "the pixels are in several chunks"
    after = start + 4 + length + 4  # data and its checksum
    data[after + 4 : after + 8] = b"\x01\x02\x03\x04"
    return bytes(data)


@pytest.mark.parametrize(
    "kind",
    [
        *("text", "empty", "truncated", "flipped bytes"),
        "broken chunk",
    ],
)
def test_unreadable_file_raises_and_is_named(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "set" / "v1" / "00000.png"
    path.parent.mkdir(parents=True)
    path.write_bytes(_broken(kind))
    height, width = (400, 400) if kind == "broken chunk" else (HEIGHT, WIDTH)
    with pytest.raises(DataError, match="cannot be read") as raised:
        read_motion_mask(str(tmp_path), _video(height=height, width=width), 0)
    assert str(path) in str(raised.value)
    assert str(raised.value).endswith(". Write it again, or delete it.")


# ---------------------------------------------------------------- check before training


def test_check_without_the_folder_raises(tmp_path: Path) -> None:
    for path in (tmp_path / "nowhere", tmp_path / "file"):
        (tmp_path / "file").touch()
        with pytest.raises(ConfigError, match=r"^INPUT\.MOTION_MASK_ROOT") as raised:
            check_motion_masks(str(path), [_video()])
        assert str(path) in str(raised.value)


def test_check_without_any_mask_says_where_it_looked(tmp_path: Path) -> None:
    _write(tmp_path / "another" / "00000.png")
    first = _video(3)
    second = {**_video(2), "file_names": ["/data/frames/set/v2/0.jpg"] * 2}
    with pytest.raises(ConfigError, match=r"^INPUT\.MOTION_MASK_ROOT") as raised:
        check_motion_masks(str(tmp_path), [first, second])
    assert "5 frames" in str(raised.value)
    for path in candidate_paths(str(tmp_path), first["file_names"][0], first["image_root"], 0):
        assert path in str(raised.value)


def test_check_counts_the_frames(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    _write(tmp_path / "set" / "v1" / "00005.png")
    with caplog.at_level(logging.INFO, logger="maskfreevis_ext.data.motion_masks"):
        logging.getLogger("maskfreevis_ext").propagate = True
        check_motion_masks(str(tmp_path), [_video(3), _video(1)])
    assert "1 of 4 frames have motion masks" in caplog.text


def _registered(tmp_path: Path) -> str:
    content = plain_content((4,), masks=True)
    name = unique_name("motion")
    register_ytvis_instances(
        name, {}, write_json(tmp_path, content), write_frames(tmp_path, content)
    )
    return name


def test_training_data_are_checked(tmp_path: Path) -> None:
    name = _registered(tmp_path)
    cfg = data_cfg(
        *("DATASETS.TRAIN", (name,), "INPUT.MOTION_MASK_ROOT", str(tmp_path / "motion"), *HEAD)
    )
    with pytest.raises(ConfigError, match="is not there"):
        load_train_videos(cfg)
    (tmp_path / "motion").mkdir()
    with pytest.raises(ConfigError, match="none of the 4 frames"):
        load_train_videos(cfg)
    _write(tmp_path / "motion" / "v1" / "00002.png")
    assert len(load_train_videos(cfg)) == 1


# ---------------------------------------------------------------- the mapper


def _moving_mask(t: int) -> np.ndarray:
    """Two asymmetric areas; edges lie at even pixels, so that halving does not mix cells."""
    mask = np.zeros((HEIGHT, WIDTH), dtype=bool)
    mask[2:8, 2 + 2 * t : 12 + 2 * t] = True
    mask[12:18, 20:24] = True
    return mask


@pytest.fixture
def seen(tmp_path: Path) -> tuple[dict, Path]:
    """A video of 6 frames that show their motion mask in white; and its root. Frame 4 has none."""
    content = plain_content((6,), masks=True)
    path, root = write_json(tmp_path, content), tmp_path / "frames"
    for t, name in enumerate(content["videos"][0]["file_names"]):
        white = _moving_mask(t).astype(np.uint8)[..., None].repeat(3, 2) * np.uint8(255)
        _write(root / name, white)
        if t != 4:
            _write(tmp_path / "motion" / "v1" / f"{t:05d}.png", _moving_mask(t))
    (video,) = load_ytvis_json(path, str(root))
    return video, tmp_path / "motion"


def _mapper(root: Path, *overrides: object, is_train: bool = True) -> YTVISDatasetMapper:
    cfg = data_cfg(
        *("INPUT.MOTION_MASK_ROOT", str(root), "INPUT.SAMPLING_FRAME_NUM", 4),
        *HEAD,
        *overrides,
    )
    return YTVISDatasetMapper(cfg, is_train=is_train)


GEOMETRY = {
    "as it is": (),
    "flip": ("INPUT.RANDOM_FLIP", "flip_by_clip"),
    "vertical flip": ("INPUT.RANDOM_FLIP", "vertical"),
    "double": ("INPUT.MIN_SIZE_TRAIN", (2 * HEIGHT,)),
    "half": ("INPUT.MIN_SIZE_TRAIN", (HEIGHT // 2,)),
    "flip and sizes": (
        *("INPUT.RANDOM_FLIP", "flip_by_clip"),
        *("INPUT.MIN_SIZE_TRAIN", (HEIGHT // 2, HEIGHT, 2 * HEIGHT)),
    ),
    "crop": (
        "INPUT.CROP.ENABLED",
        True,
        "INPUT.CROP.TYPE",
        "absolute",
        "INPUT.CROP.SIZE",
        (9, 13),
        "INPUT.MIN_SIZE_TRAIN",
        (0,),  # no resize: a clip that cannot be cut stays as it is
    ),
    "crop, double and flip": (
        *("INPUT.CROP.ENABLED", True, "INPUT.CROP.TYPE", "absolute", "INPUT.CROP.SIZE", (10, 13)),
        *("INPUT.MIN_SIZE_TRAIN", (20,), "INPUT.RANDOM_FLIP", "flip_by_clip"),
    ),
}


@pytest.mark.parametrize("supervision", ["box", "mask"])
@pytest.mark.parametrize("geometry", GEOMETRY)
def test_masks_go_through_what_the_frames_go_through(
    seen: tuple[dict, Path], geometry: str, supervision: str
) -> None:
    video, root = seen
    mapper = _mapper(root, "INPUT.SUPERVISION", supervision, *GEOMETRY[geometry])
    changed = compared = 0
    for seed in range(12):
        np.random.seed(seed)
        sample = mapper(video)
        masks = sample["motion_masks"]
        assert len(masks) == len(sample["image"]) == 4
        for image, mask, index in zip(sample["image"], masks, sample["frame_indices"], strict=True):
            if index == 4:
                assert mask is None
                continue
            assert mask.dtype == torch.bool
            assert mask.shape == image.shape[1:]
            assert torch.equal(mask, image[0] > 127)
            compared += 1
            original = torch.from_numpy(_moving_mask(index))
            changed += mask.shape != original.shape or not torch.equal(mask, original)
    assert compared >= 30
    assert (changed > 0) == (geometry != "as it is")


def test_masks_keep_still_under_colour(seen: tuple[dict, Path]) -> None:
    video, root = seen
    kinds = ["brightness", "contrast", "saturation"]
    sample = _mapper(root, "INPUT.AUGMENTATIONS", kinds)(video)
    for mask, index in zip(sample["motion_masks"], sample["frame_indices"], strict=True):
        assert mask is None or torch.equal(mask, torch.from_numpy(_moving_mask(index)))


def test_masks_turn_with_the_frames(seen: tuple[dict, Path]) -> None:
    video, root = seen
    mapper = _mapper(root, "INPUT.SUPERVISION", "mask", "INPUT.AUGMENTATIONS", ["rotation"])
    np.random.seed(1)
    sample = mapper(video)
    for image, mask in zip(sample["image"], sample["motion_masks"], strict=True):
        if mask is not None:
            turned = image[0] > 127
            assert (mask != turned).float().mean() < 0.05  # edges: nearest against bilinear
            assert (mask & turned).sum() > 0.8 * mask.sum()


def test_none_stands_where_a_frame_has_no_mask(seen: tuple[dict, Path]) -> None:
    video, root = seen
    sample = _mapper(root, "INPUT.SAMPLING_FRAME_NUM", 6)(video)
    assert [mask is None for mask in sample["motion_masks"]] == [t == 4 for t in range(6)]


def test_clip_without_any_mask_has_none_altogether(seen: tuple[dict, Path]) -> None:
    video, root = seen
    for path in (root / "v1").iterdir():
        path.unlink()
    sample = _mapper(root)(video)
    assert "motion_masks" in sample
    assert sample["motion_masks"] is None


def test_key_is_absent_without_a_root_and_at_test_time(seen: tuple[dict, Path]) -> None:
    video, root = seen
    assert "motion_masks" not in YTVISDatasetMapper(data_cfg(), is_train=True)(video)
    assert "motion_masks" not in _mapper(root, is_train=False)(video)


def test_masks_change_nothing_else_of_the_sample(seen: tuple[dict, Path]) -> None:
    video, root = seen
    samples = []
    for mapper in (_mapper(root), YTVISDatasetMapper(data_cfg("INPUT.SAMPLING_FRAME_NUM", 4))):
        np.random.seed(3)
        samples.append(mapper(video))
    with_masks, without = samples
    assert set(with_masks) - set(without) == {"motion_masks", "valid_area"}
    assert with_masks["frame_indices"] == without["frame_indices"]
    for frame, expected in zip(with_masks["image"], without["image"], strict=True):
        assert torch.equal(frame, expected)


def test_wrong_size_stops_the_mapper(seen: tuple[dict, Path]) -> None:
    video, root = seen
    for t in range(6):
        _write(root / "v1" / f"{t:05d}.png", np.zeros((5, 5), dtype=np.uint8))
    with pytest.raises(DataError, match=r"v1.0000\d\.png: expected a motion mask of the size"):
        _mapper(root)(video)
