"""Files that are written whole or not at all."""

from __future__ import annotations

import json
import math
import os
from typing import Any

from maskfreevis_ext.errors import DataError


def write_json(content: Any, path: str | os.PathLike[str], indent: int | None = None) -> None:
    """Write JSON beside its place first, so that the file is the old one or the new one.

    Args:
        content: What ``json.dump`` takes.
        path: The file; one of that name is replaced at the end.
        indent: As in ``json.dump``; with it the file ends with a newline.
    """
    temporary = f"{path}.tmp"
    try:
        with open(temporary, "w", encoding="utf-8") as file:
            json.dump(content, file, indent=indent)
            if indent is not None:
                file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        if os.path.exists(temporary):
            os.remove(temporary)
        raise


def write_report(report: dict[str, Any], path: str | os.PathLike[str]) -> None:
    """Write the figures of a tool, null where one is NaN.

    Raises:
        DataError: The file cannot be written.
    """
    try:
        write_json(_without_nan(report), path, indent=2)
    except OSError as error:
        raise DataError(f"{path}: cannot be written: {error.strerror or error}.") from error


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value
