"""How a key is declared: default, one sentence, bounds. `schema` is written with it, everything else reads it."""

import copy
import dataclasses
import functools
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from typing_extensions import dataclass_transform

from solo.errors import UserError

REQUIRED = dataclasses.MISSING
LISTS = (list, tuple)  # what is a list in YAML; schemas say `tuple[int, ...]`


@dataclass(frozen=True)
class Key:
    """One declared key. `bounds` maps `>=`, `>`, `<=`, `<` to numbers; `open`: programs may give other names, too."""

    name: str
    type: Any
    default: Any
    help: str
    bounds: dict[str, float]
    open: bool = False
    matters: bool = True

    @property
    def required(self) -> bool:
        """Whether it has no default."""
        return self.default is REQUIRED

    @property
    def section(self) -> type | None:
        """The dataclass behind a section; `None` for a plain value."""
        return self.type if dataclasses.is_dataclass(self.type) and isinstance(self.type, type) else None

    @property
    def item(self) -> type | None:
        """The dataclass behind each entry of a list of sections."""
        args = typing.get_args(self.type) if typing.get_origin(self.type) in LISTS else ()
        return args[0] if args and dataclasses.is_dataclass(args[0]) else None


def key(default: Any, help: str, open: bool = False, matters: bool = True, **bounds: float) -> Any:
    """A dataclass field; `default` is a value, `REQUIRED`, or the class of a section. Bounds: `ge gt le lt`.

    With `matters=False` it is `idle`.
    """
    signs = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}
    bounds = {signs.get(name, name): bound for name, bound in bounds.items()}
    metadata = {"help": help, "bounds": bounds, "open": open, "matters": matters}
    if default is REQUIRED:
        return dataclasses.field(metadata=metadata)
    if isinstance(default, (type, list, tuple, dict)):
        factory = default if isinstance(default, type) else functools.partial(copy.deepcopy, default)
        return dataclasses.field(default_factory=factory, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def idle(default: Any, help: str, **bounds: float) -> Any:
    """A key, or a section, that doesn't change what a run computes: where its files lie, how fast they are read, ...

    A run may be resumed with another value, and results are compared regardless of it.
    """
    return key(default, help, open=False, matters=False, **bounds)


def derived(default: Any = None) -> Any:
    """A field of a schema that is no key: nobody writes it, the library fills it in, or a subclass makes it one."""
    return dataclasses.field(default=default, repr=False, compare=False, metadata={"derived": True})


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(key, idle, derived))
@dataclass(frozen=True)
class Section:
    """What all sections of a configuration are: frozen dataclasses, made with their keys by name."""

    def __init_subclass__(cls) -> None:
        dataclass(frozen=True, kw_only=True)(cls)


def keys_of(schema: type) -> dict[str, Key]:
    """The keys of a schema in the order of their declaration; those that a user has declared come last."""
    schema = with_own_keys(schema)
    if schema not in _KEYS:
        _KEYS[schema] = _read_keys(schema)
    return _KEYS[schema]


def extra_keys_of(schema: type) -> dict[str, Key]:
    """Keys that are accepted beside those of a schema, and never filled in."""
    return keys_of(getattr(schema, "EXTRA", Section))


def _read_keys(schema: type) -> dict[str, Key]:
    hints = typing.get_type_hints(schema)
    keys = {}
    for field in dataclasses.fields(schema):
        if "derived" in field.metadata:
            continue
        factory = field.default_factory
        default = None if dataclasses.is_dataclass(factory) else field.default if factory is REQUIRED else factory()
        keys[field.name] = Key(field.name, hints[field.name], default, **{"help": "", "bounds": {}, **field.metadata})
    return keys


def with_own_keys(schema: type) -> type:
    """The schema, or where a user has declared keys of their own the one that has these, too."""
    return _OWN.get(schema, schema)


def add_keys(schema: type, keys: type) -> None:
    """Add the fields of a user's dataclass, of new names, to a schema, see `solo.args.outside`."""
    if (schema, keys) in _ADDED:
        return
    known = {*keys_of(schema), *extra_keys_of(schema)}
    new: dict[str, Any] = {"__annotations__": {}}
    for found in _read_keys(keys).values():
        if found.name in known:
            raise UserError(f"{keys.__name__}.{found.name}: {schema.__name__} has a key of that name; choose another")
        default = found.section or found.default
        new["__annotations__"][found.name] = found.type
        new[found.name] = key(default, found.help, found.open, found.matters, **found.bounds)
    extended = type(schema.__name__, (with_own_keys(schema),), new)
    _OWN[schema] = extended if issubclass(schema, Section) else dataclass(frozen=True, kw_only=True)(extended)
    _ADDED[schema, keys] = True


def declarations() -> int:
    """How often keys have been added."""
    return len(_ADDED)


_OWN: dict[type, type] = {}
_ADDED: dict[tuple[type, type], bool] = {}
_KEYS: dict[type, dict[str, Key]] = {}


def idle_keys(schema: type, prefix: str = "") -> Iterator[str]:
    """Dotted names of the keys and sections that don't change what a run computes."""
    for found in [*keys_of(schema).values(), *extra_keys_of(schema).values()]:
        if not found.matters:
            yield prefix + found.name
        elif found.section:
            yield from idle_keys(found.section, f"{prefix}{found.name}.")


def walk(schema: type, prefix: str = "") -> Iterator[tuple[str, Key]]:
    """Every key that holds a value, with its dotted path; entries of a list of sections as `name[i].key`."""
    for found in keys_of(schema).values():
        path = prefix + found.name
        if found.section:
            yield from walk(found.section, path + ".")
        else:
            yield path, found
            if found.item:
                yield from walk(found.item, path + "[i].")


def describe_type(kind: Any) -> str:
    """A type in a user's words: `float or null`, `list of int`, `a | b | c`."""
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin is Literal:
        return " | ".join(str(choice) for choice in args)
    if origin in LISTS:
        inner = "section" if dataclasses.is_dataclass(args[0]) else describe_type(args[0])
        return f"list of {inner}"
    if origin is dict or kind is dict:
        return "section"
    if args:
        return " or ".join(describe_type(arg) for arg in args)
    name = str(kind.__name__)
    return {"NoneType": "null", "str": "text", "Any": "anything"}.get(name, name)
