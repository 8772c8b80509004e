"""Reading JSON objects whose keys are known: every fault is a ValueError that says what to write instead."""

import sys
from collections.abc import Collection, Sequence
from enum import StrEnum
from typing import Any, TypeVar

Choice = TypeVar("Choice", bound=StrEnum)


class Fields:
    """The fields of one JSON object; ``where`` is its path in the document, as ``preprocessing.resize``."""

    def __init__(self, value: object, where: str, keys: Collection[str]) -> None:
        if not isinstance(value, dict):
            raise ValueError(f"{where} must be an object")  # noqa: TRY004 - one class for every fault
        strangers = sorted(str(key) for key in value if key not in keys)
        if strangers:
            raise ValueError(f"{where} has no field {strangers[0]}, only {', '.join(keys)}")
        self._values = value
        self._where = where

    def __contains__(self, key: str) -> bool:
        return key in self._values

    def get(self, key: str) -> Any:
        """Return the value as it is, or None."""
        return self._values.get(key)

    def refuse(self, keys: Sequence[str], sentence: str) -> None:
        """Raise with ``sentence`` about the first of ``keys`` that is given."""
        given = next((key for key in keys if key in self._values), None)
        if given is not None:
            raise ValueError(f"{self._where}.{given} {sentence}")

    def fault(self, key: str, sentence: str) -> ValueError:
        """Return the error that says ``sentence`` about one field."""
        return ValueError(f"{self._where}.{key} {sentence}")

    def choice(self, key: str, kind: type[Choice], default: Choice | None = None) -> Choice:
        """Return one of the words of ``kind``."""
        value = self._values.get(key, default)
        if not isinstance(value, str) or value not in set(kind):
            raise self.fault(key, f"must be one of {', '.join(kind)}")
        return kind(value)

    def integer(self, key: str, low: int, high: int, default: int | None = None) -> int:
        """Return a whole number from ``low`` to ``high``."""
        value: Any = self._values.get(key, default)
        if type(value) is not int or not low <= value <= high:
            raise self.fault(key, f"must be a whole number from {low} to {high}")
        return value

    def positive(self, key: str, default: float | None = None) -> float:
        """Return a finite number above 0."""
        value: Any = self._values.get(key, default)
        if not is_number(value) or value <= 0:
            raise self.fault(key, "must be a number above 0")
        return float(value)

    def numbers(self, key: str, count: int, default: float) -> tuple[float, ...]:
        """Return ``count`` finite numbers; a list of one stands for all of them."""
        values = self._values.get(key, [default])
        if not isinstance(values, list) or len(values) not in (1, count) or not all(map(is_number, values)):
            listed = "a list of one number" if count == 1 else f"a list of one number, or of {count}"
            raise self.fault(key, f"must be {listed}")
        return tuple(float(value) for value in values) * (count // len(values))

    def flag(self, key: str) -> bool:
        """Return true or false; false where nothing is given."""
        value = self._values.get(key, False)
        if not isinstance(value, bool):
            raise self.fault(key, "must be true or false")
        return value

    def text(self, key: str) -> str | None:
        """Return a text that is not empty, or None where nothing is given."""
        value = self._values.get(key)
        if key in self._values and (not isinstance(value, str) or not value):
            raise self.fault(key, "must be a text that is not empty")
        return value


def is_number(value: Any) -> bool:
    """Say whether a JSON value is a number that a float can hold: Python reads NaN and 10^400, too."""
    return type(value) in (int, float) and abs(value) <= sys.float_info.max
