"""JSON at speed: orjson where it is installed, Python's own elsewhere. Values are trusted here."""

from __future__ import annotations

from typing import Any

try:
    import orjson
except ImportError:  # it comes with yaotask[standard]
    import json

    _encoder = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))

    def encode(value: Any) -> bytes:
        """Compact JSON in UTF-8; TypeError or UnicodeEncodeError where that cannot be."""
        return _encoder.encode(value).encode()

    def decode(text: str | bytes) -> Any:
        """The value of a JSON text."""
        return json.loads(text)

else:
    _OPTIONS = orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_PASSTHROUGH_DATACLASS

    def _flatten(value: Any) -> Any:
        # Subclasses of tuple are the only ones that json takes and orjson does not.
        if isinstance(value, tuple):
            return list(value)
        raise TypeError(f"{type(value).__name__} is no JSON type")

    def encode(value: Any) -> bytes:
        """Compact JSON in UTF-8; TypeError or UnicodeEncodeError where that cannot be."""
        return orjson.dumps(value, _flatten, _OPTIONS)

    def decode(text: str | bytes) -> Any:
        """The value of a JSON text."""
        return orjson.loads(text)
