"""How a key is declared (default, one sentence, bounds), and how plain values are checked against all that are.

Defaults are filled in, what is obvious is converted, and all problems are found in one go.
"""

import contextlib
import copy
import dataclasses
import functools
import math
import operator
import reprlib
import types
import typing
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Union

from typing_extensions import dataclass_transform

from solo.errors import ConfigError, UserError, did_you_mean, printable

REQUIRED = dataclasses.MISSING
LISTS = (list, tuple)  # what is a list in YAML; schemas say `tuple[int, ...]`


@dataclass(frozen=True)
class Key:
    """One declared key. `bounds` maps `ge gt le lt` to numbers; `open`: programs may give other names, too."""

    name: str
    type: Any
    default: Any
    help: str = ""
    bounds: dict[str, float] = dataclasses.field(default_factory=dict)
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
    """A field: its default value, `REQUIRED` or a section's class; bounds are `ge gt le lt`; `matters`: not `idle`."""
    metadata = {"help": help, "bounds": bounds, "open": open, "matters": matters}
    if default is REQUIRED:
        return dataclasses.field(metadata=metadata)
    if isinstance(default, (type, list, tuple, dict)):
        factory = default if isinstance(default, type) else functools.partial(copy.deepcopy, default)
        return dataclasses.field(default_factory=factory, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def idle(default: Any, help: str, **bounds: float) -> Any:
    """A key or section that doesn't change what a run computes: it may differ in resumed runs and in comparisons."""
    return key(default, help, open=False, matters=False, **bounds)


def derived(default: Any = None) -> Any:
    """A field of a schema that is no key: nobody writes it, the library fills it in, or a subclass makes it one."""
    return dataclasses.field(default=default, repr=False, compare=False, metadata={"derived": True})


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(key, idle, derived))
@dataclass(frozen=True)
class Section:
    """What all sections of a configuration are: frozen dataclasses, made with their keys by name."""

    POSITIONAL: ClassVar[tuple[str, ...]] = ()  # keys that a command's first words are

    def __init_subclass__(cls, positional: tuple[str, ...] = ()) -> None:
        dataclass(frozen=True, kw_only=True)(cls)
        cls.POSITIONAL = positional or cls.POSITIONAL


def keys_of(schema: type) -> dict[str, Key]:
    """The keys of a schema in the order of their declaration; those that a user has declared come last."""
    return _read_keys(with_own_keys(schema))


def extra_keys_of(schema: type) -> dict[str, Key]:
    """Keys that are accepted beside those of a schema, and never filled in."""
    return keys_of(getattr(schema, "EXTRA", Section))


@functools.cache
def _read_keys(schema: type) -> dict[str, Key]:
    hints, keys = typing.get_type_hints(schema), {}
    for field in dataclasses.fields(schema):
        if "derived" in field.metadata:
            continue
        factory = field.default_factory
        default = None if dataclasses.is_dataclass(factory) else field.default if factory is REQUIRED else factory()
        keys[field.name] = Key(field.name, hints[field.name], default, **field.metadata)
    return keys


def with_own_keys(schema: type) -> type:
    """The schema, or where a user has declared keys of their own the one that has these, too."""
    return _OWN.get(schema, schema)


def add_keys(schema: type, keys: type) -> None:
    """Add the fields of a user's dataclass, of new names, to a schema, see `solo.args.config`."""
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


MOST_SHOWN = 20  # problems; what is wrong more often is not written by hand
Values = Mapping[str, Any]  # a config, or a section of one
_UNIONS = (Union, types.UnionType)
_NOTHING = (None, "None", "null", "")
_TRUE, _FALSE = (True, 1, "true", "yes", "on"), (False, 0, "false", "no", "off")
_SIGNS = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}

# Keys that people look for -> why there are none.
_ABSENT = {
    "bootstrap": "write intervals=true or intervals=false",
    "data.multi_label": "an image has one class here, at every level; several labels of one image can't be learned",
}


# One thing to fix: a key, and a text that continues the sentence which begins with the key, as the user wrote it.
Problem = tuple[str, str]
Checked = tuple[dict[str, Any], list[Problem]]


class ParseError(ConfigError, AssertionError):
    """What solo-learn's `parse_cfg` asserted; code written for it may catch it as an `AssertionError`."""


def check(values: Values, schema: type, path: str = "", own: dict[str, Any] | None = None) -> Checked:
    """Compare a section of plain dicts, lists and numbers with its schema.

    `path` says where it stands, `""` or ending in a dot. `own` is for what a program adds: keys that are none are put
    there instead of being problems, and other names of an optimizer, of a scheduler, ... pass. Returns all keys of the
    schema (a wrong or missing value is `None`), and the problems.
    """
    problems: list[Problem] = []
    leaves = [name for name, _ in walk(schema, path)]

    def section(values: Any, schema: type, path: str) -> dict[str, Any]:
        known, extra = keys_of(schema), extra_keys_of(schema)
        if not isinstance(values, Mapping):
            problems.append((path[:-1], f"={short(values)} is no section; give {', '.join(known)}"))
            values = {}
        checked = {name: value_of(values, found, path) for name, found in known.items()}
        for name in values:
            if name in extra:
                checked[name] = value_of(values, extra[name], path)
            elif name not in known and own is not None:
                own[f"{path}{name}"] = values[name]
            elif name not in known:
                advice = _advice(str(name), [*known, *extra], leaves, path) if len(problems) < MOST_SHOWN else ""
                problems.append((printable(f"{path}{name}"), f" is not a key{advice}"))
        return checked

    def value_of(values: Mapping[str, Any], found: Key, path: str) -> Any:
        name, value = path + found.name, values.get(found.name, "???")
        if found.section:
            return section({} if value in ("???", None) else value, found.section, name + ".")
        if found.required and value in ("???", *_NOTHING, []):
            problems.append((name, f" is missing; give {describe_type(found.type)}: {found.help}"))
            return None
        if value == "???":
            return copy.copy(found.default)
        if found.open and own is not None and isinstance(value, str):
            return value
        if found.item and isinstance(value, LISTS):
            return [section(entry, found.item, f"{name}[{i}].") for i, entry in enumerate(value)]
        try:
            if found.item:
                keys = ", ".join(keys_of(found.item))
                raise _Refused(f"={short(value)} is no list of sections; give a list, each with {keys}")
            converted = convert(value, found.type)
            entries = converted if isinstance(converted, list) else [converted]
            numbers = [entry for entry in entries if isinstance(entry, (int, float))]
            bounds = found.bounds.items()
            if not all(getattr(operator, name)(number, bound) for number in numbers for name, bound in bounds):
                allowed = " and ".join(f"{_SIGNS[name]} {bound}" for name, bound in bounds)
                raise _Refused(f"={short(value)} is out of range; give a number {allowed}")
            if converted == [] and isinstance(found.default, LISTS) and found.default:
                raise _Refused(f"=[] is empty; give at least one: {found.help}")
            return converted
        except _Refused as expected:
            problems.append((name, str(expected)))
            return None

    return section(values, schema, path), problems


def _advice(name: str, known: list[str], leaves: list[str], path: str) -> str:
    """What to write instead of a key that isn't one."""
    if why := _ABSENT.get(f"{path}{name}"):
        return f": {why}"
    leaves = [leaf for leaf in leaves if "[" not in leaf]
    places = [leaf for leaf in leaves if leaf.split(".")[-1] == name]  # the right word in the wrong place
    hint = f"did you mean {' or '.join(repr(place) for place in places[:3])}? " if places else ""
    hint = hint or did_you_mean(f"{path}{name}", [f"{path}{found}" for found in known])
    hint = hint or did_you_mean(f"{path}{name}", leaves)
    return f"; {hint}" + (f"keys of {path[:-1]}: {', '.join(known)}" if path else "--help lists all keys")


def get(values: Mapping[str, Any], key: str, missing: Any = None) -> Any:
    """The value of a dotted key; of a section or key that isn't there `missing`."""
    found: Any = values
    for part in key.split("."):
        if not isinstance(found, Mapping) or part not in found:
            return missing
        found = found[part]
    return found


def unknown(value: object, choices: Iterable[str]) -> str:
    """The sentence for a value that is not one of `choices`: `='x' is unknown; did you mean 'y'? choose ...`."""
    names = list(dict.fromkeys(str(choice) for choice in choices))
    hint = did_you_mean(value, names) if isinstance(value, str) else ""
    return f"={short(value)} is unknown; {hint}choose {', '.join(names)}"


def short(value: object) -> str:
    """A value for a message of one line."""
    if isinstance(value, int) and abs(value) >= 10**60:
        return f"{'-' * (value < 0)}1e{int(math.log10(abs(value)))}"
    return _REPR.repr(value)


_REPR = reprlib.Repr()
_REPR.maxstring = _REPR.maxother = 80
_REPR.maxlist = 12


class _Refused(Exception):
    """Says what would be right."""


def convert(value: Any, kind: Any) -> Any:
    """The value as `kind`: `"0.3"` as float, the text `None` as null; `_Refused` says to the user why not."""
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin in _UNIONS:
        nullable = type(None) in args
        if nullable and (value is None or (isinstance(value, str) and value in _NOTHING)):
            return None
        if type(value) in args:
            return value
        for arm in (arm for arm in args if arm is not type(None)):
            try:
                return convert(value, arm)
            except _Refused as refused:
                last = refused
        raise last if len(args) == 2 and nullable else _wrong(value, kind)
    if origin is Literal:
        if value in args:
            return value
        raise _Refused(unknown(value, args))
    if origin in LISTS:
        if isinstance(value, LISTS):
            return [convert(entry, args[0]) for entry in value]
        try:
            return [convert(value, args[0])]  # a list of one
        except _Refused as refused:
            raise refused if typing.get_origin(args[0]) is Literal else _wrong(value, kind) from None
    if origin is dict and value in _NOTHING:
        return {}
    if origin is dict and isinstance(value, Mapping):
        return {str(name): entry for name, entry in value.items()}
    if kind is Any:
        return value
    if kind is bool:
        word = value.lower() if isinstance(value, str) else value
        if isinstance(word, (str, int)) and word in _TRUE + _FALSE:
            return word in _TRUE
    elif isinstance(value, bool):
        raise _wrong(value, kind)
    elif kind is str and isinstance(value, (str, int, float)):
        return str(value)
    elif kind in (int, float):
        with contextlib.suppress(TypeError, ValueError, OverflowError):
            number = float(value)
            if kind is int and abs(number) >= 2**63 and math.isfinite(number):
                raise _Refused(f"={short(value)} is out of range; give a number below 2**63")
            if math.isfinite(number) and (kind is float or number == int(number)):
                return int(value) if kind is int and isinstance(value, int) else kind(number)
    raise _wrong(value, kind)


def _wrong(value: Any, kind: Any) -> _Refused:
    return _Refused(f"={short(value)} has the wrong type; give {describe_type(kind)}")
