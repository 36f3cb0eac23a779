"""Every setting of a declaration, found by looking at the models themselves.

So that the reference page, the resolution of templates and the tests that prove each setting to do
something cannot forget one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from ondine_dagster.spec.base import Braces, FieldRole, Part, Role
from ondine_dagster.spec.problems import Location, dotted

_ANY_NAME = "*"


@dataclass(frozen=True, slots=True)
class DeclaredField:
    """One setting, or one section of settings.

    In `location`, `*` stands for a name that the user chooses: `output.fields.*.type`.
    """

    location: Location
    info: FieldInfo
    is_section: bool

    @property
    def path(self) -> str:
        """The setting as people write it."""
        return dotted(self.location)

    @property
    def role(self) -> Role | None:
        """What a change costs; None for a section, whose settings have roles of their own."""
        return next((mark.role for mark in self.info.metadata if isinstance(mark, FieldRole)), None)

    @property
    def braces(self) -> Braces | None:
        """What `{{ }}` means in it; None where it is refused."""
        return next((mark for mark in self.info.metadata if isinstance(mark, Braces)), None)


def all_fields(
    model: type[BaseModel], above: Location = (), outer: tuple[type[BaseModel], ...] = ()
) -> Iterator[DeclaredField]:
    """Yield all settings and sections of a model in declared order, each before its own parts.

    A part that may hold itself (a property of an object) is described once: `outer` are those that
    hold this one.
    """
    for name, info in model.model_fields.items():
        location = (*above, name)
        parts = list(_parts(info.annotation))
        has_role = any(isinstance(mark, FieldRole) for mark in info.metadata)
        yield DeclaredField(location, info, is_section=not has_role)
        inside = (*location, _ANY_NAME) if _is_mapping(info.annotation) else location
        for part in parts:
            if part not in outer:
                yield from all_fields(part, inside, (*outer, part))


def declared_fields(model: type[BaseModel]) -> list[str]:
    """Return the paths of all settings that a user can write: `llm.temperature`, ...

    A section is not one of them. `output.fields.*.accept` is, for its short form (a list), and so
    are the keys of its long forms.
    """
    return [field.path for field in all_fields(model) if not field.is_section]


def field_at(model: type[BaseModel], location: Location) -> DeclaredField | None:
    """Return the setting to which a place in a declaration belongs, or None if there is none."""
    best = None
    for field in all_fields(model):
        if not field.is_section and _covers(field.location, location):
            best = field if best is None or len(field.location) > len(best.location) else best
    return best


def _covers(pattern: Location, location: Location) -> bool:
    pairs = zip(pattern, location, strict=False)
    return len(pattern) <= len(location) and all(step in (_ANY_NAME, own) for step, own in pairs)


def _parts(annotation: Any) -> Iterator[type[Part]]:
    if isinstance(annotation, type) and issubclass(annotation, Part):
        yield annotation
    for argument in get_args(annotation):
        yield from _parts(argument)


def _is_mapping(annotation: Any) -> bool:
    return getattr(annotation, "__origin__", None) is dict
