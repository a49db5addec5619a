"""Names in files that would act on the terminal of whoever reads the message."""

from __future__ import annotations

import contextlib
import io
import json
import random
import unicodedata
from pathlib import Path
from typing import Any

from maskfreevis_ext.config import load_config
from maskfreevis_ext.data.json_fields import read_json
from maskfreevis_ext.data.ytvis import load_ytvis_json
from maskfreevis_ext.engine.user_errors import exit_on_user_error
from maskfreevis_ext.evaluation.ground_truth import read_ground_truth
from tests.faults.attack.cases import attack
from tests.helpers.videos import plain_content

#: Colours, titles, clipboards, cleared screens, backspaces, right-to-left marks, null.
_ACTING = (
    *("\x1b[31m", "\x1b]0;title\x07", "\x1b]52;c;aGk=\x07", "\x1b[2J\x1b[H", "\x1bc", "\x9b31m"),
    *(
        "\b" * 40,
        "\r",
        "\x00",
        "\x07",
        "\x7f",
        "\x85",
        "\u202e",
        "\u2066",
        "\u2028",
        "\u200f",
        "\x0c",
    ),
)
_SHOWN = "\n\t"


def _walk(content: Any, rng: random.Random, text: str) -> None:
    """Put a text where a random value of a JSON content is, or into a key."""
    while True:
        keys: list[Any] = list(content) if isinstance(content, dict) else list(range(len(content)))
        key = rng.choice(keys)
        if isinstance(content[key], (dict, list)) and content[key] and rng.random() < 0.85:
            content = content[key]
            continue
        if isinstance(content, dict) and rng.random() < 0.1:
            content[f"{key}{text}"] = content.pop(key)
        else:
            old = content[key]
            content[key] = f"{old}{text}" if rng.random() < 0.7 else text
        return


def acting_characters(said: str) -> str:
    """The characters of a text that act on a terminal."""
    kinds = ("Cc", "Cf", "Cs", "Zl", "Zp")
    return "".join(c for c in said if c not in _SHOWN and unicodedata.category(c) in kinds)


@attack(
    "control characters in names of files, classes and keys",
    "messages show them as \\x1b; exit code 2",
    count=1000,
    quick=30,
    limit=30,
)
def control_characters(index: int, rng: random.Random, folder: Path) -> str | None:
    """An annotation or a config file whose message holds a text of its own."""
    text = "".join(rng.choices(_ACTING, k=rng.randint(1, 3)))
    path = folder / "bad.json"
    if index % 4 == 0:
        key = rng.choice(["OUTPUT_DIR", "MODEL", "SEED", f"NO{text}KEY", "_BASE_"])
        path = folder / "bad.yaml"
        path.write_text(f"{json.dumps(key)}: {json.dumps('x' + text)}\n", encoding="utf-8")
        work = [(load_config, (str(path),))]
    else:
        content = plain_content((2, 1), masks=True)
        for _ in range(rng.randint(1, 2)):
            _walk(content, rng, text)
        path.write_text(json.dumps(content))
        work = [
            (load_ytvis_json, (str(path), "root")),
            (lambda: read_ground_truth(read_json(str(path)), str(path)), ()),
        ]
    for function, words in work:
        said = io.StringIO()
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
            try:
                exit_on_user_error(function, *words)
            except SystemExit as error:
                if error.code != 2:
                    return f"exit code {error.code}"
        acting = acting_characters(said.getvalue())
        if acting:
            return f"printed {acting!r} in {said.getvalue()!r}"
    return None
