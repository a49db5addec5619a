"""Damaged inputs of the converter, in all formats that it reads."""

from __future__ import annotations

import random
from pathlib import Path

from maskfreevis_ext.data.readers import READERS, read_annotations
from maskfreevis_ext.data.writers import WRITERS, WriteOptions
from maskfreevis_ext.data.ytvis import load_ytvis_json
from maskfreevis_ext.errors import DataError
from tests.faults.attack.cases import attack
from tests.helpers.damage import check_sound, damage, sample_options, write_sample

FORMATS = sorted(READERS)


@attack(
    "mutated inputs of the converter, 16 formats",
    "one DataError with the place, or sound annotations that are written and read again",
    count=8000,
    quick=48,
    limit=30,
)
def converter(index: int, rng: random.Random, folder: Path) -> str | None:
    """One or two files of a sound set damaged, then converted to YouTube-VIS."""
    name = FORMATS[index % len(FORMATS)]
    source = folder / "source"
    source.mkdir()
    path, files = write_sample(name, source)
    for file in rng.sample(files, min(len(files), rng.randint(1, 2))):
        file.write_bytes(damage(file.read_bytes(), rng, file.suffix == ".json"))
    output = str(folder / "instances.json")
    try:
        dataset = read_annotations(name, path, sample_options(name))
        check_sound(dataset)
        WRITERS["ytvis"].write(dataset, output, WriteOptions())
    except DataError as error:
        text = str(error)
        is_placed = folder.name in text or "video '" in text
        return None if is_placed and len(text) < 1500 else f"{name}: poor message: {text}"
    except Exception as error:
        return f"{name}: {type(error).__name__}: {error}"
    if any(len(video.tracks) for video in dataset):
        load_ytvis_json(output, "root")  # an error of it is a loss
    return None
