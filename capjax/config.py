"""Configs: the defaults of every field, how a config is loaded and how its sections become objects.

A config is a straight Python script with `get_config(arg)`; it starts from `base()`, which holds
every field of the training loop with its default, and sets what differs:

    def get_config(arg=""):
        arg = parse_arg(arg, guidance=1.0)        # --config file.py:guidance=2.0,runlocal
        config = base()
        config.model = dict(name="capjax.models.coca", size="tiny")
        ...
        return config

Sections `model`, `task`, `tokenizer`, `data.train` and each of `evals` name a module by import path
(`name`; evaluators say `type`), and everything else in them goes to the constructor
(`instantiate`). The other sections are fixed: a field that `base()` does not have is a mistake and
is reported.

Raises `UserError` for every mistake: a missing file, an unknown field, a value of a wrong type.
"""

from __future__ import annotations

import ast
import copy
import difflib
import fnmatch
import importlib
import importlib.util
import inspect
import json
import re
import traceback
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from capjax.errors import UserError


def base() -> ConfigDict:
    """Every field of the training loop with its default. Counts are in steps unless said."""
    config = ConfigDict()
    config.seed = 0
    config.steps = 1000
    config.batch_size = 64  # examples a step, over all devices and hosts
    config.accumulate_steps = 1  # microbatches a step; their size is batch_size / this
    config.log_every = 50
    config.ema_decay = 0.0  # of an exponential moving average of the parameters; 0: none
    config.init_from = ""  # a run directory whose parameters and tokenizer to start from
    # Parts of the model that start from parts of other runs: {"image_tower": "DIR:image_tower"};
    # the second name may be left out where it is the same.
    config.init_parts = ConfigDict()

    config.model = ConfigDict({"name": ""})
    config.task = ConfigDict({"name": ""})
    config.tokenizer = ConfigDict(
        {
            "name": "capjax.data.tokenizer",  # another kind replaces the section as a whole
            "vocab_size": 4096,  # at most: small sets of captions have fewer pieces
            "max_length": 64,  # tokens, BOS and EOS included
            "lowercase": True,
            "num_records": 20_000,  # whose captions it is trained on, spread over the set
        }
    )
    config.data = ConfigDict(
        {
            "train": ConfigDict({"name": ""}),
            "image_size": 64,  # pixels; pictures become squares of this side
            "resize": "squash",
            "crop_scale": placeholder(tuple),  # (lowest, highest) share of the area; None: no crop
            "flip": False,
            "flip_sided": True,  # also where the caption speaks of left or right
            "captions": ConfigDict({"rule": "random", "weights": ()}),  # see data.caption_choice
            # See data.augment; 0 layers: none.
            "rand_augment": ConfigDict({"layers": 0, "magnitude": 9, "policy": "timm_increasing"}),
            "max_bad_fraction": 0.0,  # of the records; beyond it the run stops
            "num_threads": 4,
            "cache": False,  # keep decoded records in memory, for small sets
            "long_captions": "skip",  # or "truncate"
        }
    )
    config.optimizer = ConfigDict(
        {
            "name": "adamw",
            "learning_rate": 1e-3,
            "schedule": ConfigDict(
                {
                    "name": "cosine",
                    "warmup_steps": 0,
                    "end_fraction": 0.0,  # of the learning rate, at the last step
                    "cooldown_steps": 0,  # of constant, rsqrt and step: the last ones, down to it
                    "timescale": 10_000,  # of rsqrt: steps
                    "boundaries": (),  # of step: where the rate is multiplied by factor
                    "factor": 0.1,
                }
            ),
            "weight_decay": 1e-4,
            "b1": 0.9,
            "b2": 0.999,
            "epsilon": 1e-8,
            "clip_norm": 1.0,  # global norm of the gradient; 0: no clipping
            # By regular expressions on paths of parameters: see capjax.parameter_groups.
            "frozen": (),  # those whose path one is found in stay as they are
            "learning_rates": (),  # (regex, factor of learning_rate)
            "weight_decays": (),  # (regex, factor of weight_decay)
            "layer_decay": 1.0,  # of the learning rate, for each block up to a tower's end
        }
    )
    # Devices along each axis; -1: all that are left. See parallel.mesh.
    config.mesh = ConfigDict({"data": -1, "fsdp": 1, "tensor": 1})
    # (regex, rule) pairs and names of sets of them: see parallel.sharding.
    config.sharding = ("tensor",)
    config.checkpoint = ConfigDict(
        {
            "every": 1000,
            "keep": 2,  # the last ones
            "keep_best": 0,  # and besides them, the best by a metric of the log
            "best_metric": "",  # e.g. "evals/retrieval/recall_at_1"
            "lower_is_better": False,
        }
    )
    config.evals = ConfigDict()
    # What watches over a run: see capjax.watchdog, spikes, tracing and loggers.
    config.watchdog = ConfigDict({"seconds": 0.0, "exit": False})  # without a step; 0: none
    config.spikes = ConfigDict(
        {"window": 0, "deviations": 10.0, "action": "log"}  # losses; 0: none
    )
    config.profile = ConfigDict({"first_step": 10, "steps": 0})  # to trace; 0: none
    config.loggers = ConfigDict({"tensorboard": False, "wandb_project": ""})

    config.lock()
    for section in (
        config.model,
        config.task,
        config.data.train,
        config.evals,
        config.init_parts,
    ):
        section.unlock()
    return config


def parse_arg(arg: str | None, **defaults: Any) -> ConfigDict:
    """`key=val,flag` after the colon of `--config file.py:...`, with the types of `defaults`.

    `runlocal` (False) is always among the defaults. A key without a value means True.
    Raises UserError for a key that is not among the defaults or a value of another type.
    """
    values = {"runlocal": False, **defaults}
    for item in filter(None, (part.strip() for part in (arg or "").split(","))):
        key, given, text = item.partition("=")
        if key not in values:
            raise UserError(
                f"the config has no argument {key!r}{_did_you_mean(key, values)}; "
                f"it takes {', '.join(sorted(values))}"
            )
        values[key] = _convert(key, text if given else "true", values[key])
    return ConfigDict(values).lock()


def load(spec: str, overrides: Iterable[str] = ()) -> ConfigDict:
    """The config of `path/to/file.py[:arg]` with overrides like `--config.optimizer.b2=0.95`."""
    path, _, arg = spec.partition(":")
    config = as_config(_call_get_config(Path(path), arg))
    overrides = list(overrides)
    for override in overrides:
        _check_field(config, override)
    return _apply(config, overrides)


def as_config(value: Any) -> ConfigDict:
    """A locked copy with every list made a tuple: the form in which overrides can be typed."""
    if not isinstance(value, (ConfigDict, dict)):
        raise UserError(f"get_config must return a ConfigDict, not {type(value).__name__}")
    # A deep copy keeps what a plain one loses: the types of placeholders that hold None.
    config = ConfigDict(value) if isinstance(value, dict) else copy.deepcopy(value)
    with config.unlocked():
        _tuples(config)
    return config.lock()


def instantiate(
    section: ConfigDict,
    offer: str,
    *,
    where: str = "",
    if_taken: Mapping[str, Any] | None = None,
    **context: Any,
) -> Any:
    """The object that a config section names: `module.offer(**fields, **context)`.

    `if_taken` is more context, of which the constructor gets what it has a parameter for.

    The module is `section.type` if there is one, else `section.name`. `every`, which is the loop's,
    is left out of an evaluator's fields. `where` names the section in messages
    (`config.model`).
    Raises UserError when the module or the name in it is missing, or a field is not a parameter.
    """
    # Nested sections become plain dicts.
    fields = section.to_dict() if isinstance(section, ConfigDict) else dict(section)
    where = where or f"the {offer} section"
    key = "type" if "type" in fields else "name"
    path = fields.pop(key, "")
    if key == "type":
        fields.pop("every", None)
    if not path:
        raise UserError(f"{where} names no module: set its {key!r} to an import path")
    constructor = getattr(_import(path, where), offer, None)
    if constructor is None:
        raise UserError(f"{where}: the module {path!r} offers no {offer!r}")
    taken = inspect.signature(constructor).parameters
    context |= {name: value for name, value in (if_taken or {}).items() if name in taken}
    _check_arguments(constructor, fields, context, where=where, what=f"{path}.{offer}")
    return constructor(**fields, **context)


def to_json(config: ConfigDict) -> str:
    """The config as JSON text; tuples become lists, and `from_json` makes them tuples again."""
    return json.dumps(config.to_dict(), indent=2, default=_not_json)


def from_json(text: str) -> ConfigDict:
    """The locked config that `to_json` wrote. Raises UserError if the text is not one."""
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(f"not a config: not JSON ({error})") from error
    if not isinstance(value, dict):
        raise UserError("not a config: its JSON is not an object")
    return as_config(value)


def differences(old: ConfigDict, new: ConfigDict, ignore: Iterable[str] = ()) -> list[str]:
    """Fields whose values differ, as `field: old -> new`; `ignore` holds patterns (`mesh.*`)."""
    flat_old, flat_new = flatten(json.loads(to_json(old))), flatten(json.loads(to_json(new)))
    ignored = tuple(ignore)
    lines = []
    for name in sorted(flat_old.keys() | flat_new.keys()):
        if any(fnmatch.fnmatchcase(name, pattern) for pattern in ignored):
            continue
        before, after = flat_old.get(name, "absent"), flat_new.get(name, "absent")
        if before != after:
            lines.append(f"{name}: {before!r} -> {after!r}")
    return lines


def load_script(path: Path) -> Any:
    """The module of a config file, for whatever it offers beside `get_config`."""
    if not path.is_file():
        raise UserError(f"config file {str(path)!r} does not exist")
    spec = importlib.util.spec_from_file_location(f"config_{path.stem}", path)
    if spec is None:
        raise UserError(f"config file {str(path)!r} is not a Python file (.py)")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except SyntaxError as error:
        raise UserError(f"config file {str(path)!r}, line {error.lineno}: {error.msg}") from error
    return module


def _call_get_config(path: Path, arg: str) -> Any:
    module = load_script(path)
    get_config = getattr(module, "get_config", None)
    if get_config is None:
        raise UserError(f"config file {str(path)!r} does not define get_config(arg)")
    takes_arg = bool(inspect.signature(get_config).parameters)
    if arg and not takes_arg:
        raise UserError(f"config file {str(path)!r} takes no argument, but {arg!r} was given")
    try:
        return get_config(arg) if takes_arg else get_config()
    except (AttributeError, KeyError, TypeError) as error:
        # ConfigDict raises these for a field that the locked base lacks or of another type; any
        # other one is a bug of the script and keeps its traceback.
        frames = traceback.extract_tb(error.__traceback__)
        if "ml_collections" not in frames[-1].filename:
            raise
        line = max(frame.lineno for frame in frames if frame.filename == module.__file__)
        raise UserError(f"config file {str(path)!r}, line {line}: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    """ConfigDict's complaint without its dump of the whole config."""
    message = str(error.args[0]) if error.args else str(error)
    unknown = re.search(r'Key "([^"]+)" does not exist', message)
    if unknown:
        names = {name for field in flatten(base().to_dict()) for name in field.split(".")}
        return f"there is no field {unknown[1]!r}{_did_you_mean(unknown[1], names)}"
    return _one_line(message)


def _check_field(config: ConfigDict, override: str) -> None:
    """Raises UserError unless `--config.a.b=value` names a field of the config."""
    name, given, _ = override.partition("=")
    prefix = "--config."
    if not name.startswith(prefix) or not given:
        raise UserError(f"cannot read {override!r}: overrides look like --config.seed=1")
    section, walked = config, "config"
    path = name.removeprefix(prefix).split(".")
    for part in path:
        if not isinstance(section, ConfigDict) or part not in section:
            fields = list(section) if isinstance(section, ConfigDict) else []
            raise UserError(
                f"{walked} has no field {part!r} (given as {override}){_did_you_mean(part, fields)}"
            )
        holder, section, walked = section, section[part], f"{walked}.{part}"
    if holder.get_type(path[-1]) is type(None):
        raise UserError(
            f"{walked} is None, so its type is unknown: give it a value, or placeholder(type), in "
            f"the config file to override it"
        )


def _apply(config: ConfigDict, overrides: list[str]) -> ConfigDict:
    """The config with its overrides, parsed to the fields' types by ml_collections."""
    # Imported here: the flag parser is needed by the command line alone.
    from absl import flags
    from ml_collections import config_flags

    values = flags.FlagValues()
    argv = ["config", *overrides]
    try:
        config_flags.DEFINE_config_dict("config", config, flag_values=values, sys_argv=argv)
        values(argv)
    except (flags.Error, ValueError, TypeError) as error:
        raise UserError(_one_line(str(error))) from error
    return values.config


def _import(path: str, where: str) -> Any:
    try:
        return importlib.import_module(path)
    except ModuleNotFoundError as error:
        # A module that is there but lacks something it imports keeps its traceback.
        if error.name is None or not (path == error.name or path.startswith(error.name + ".")):
            raise
        raise UserError(f"{where} names the module {path!r}, which cannot be found") from error


def _check_arguments(
    constructor: Any, fields: dict, context: dict, *, where: str, what: str
) -> None:
    parameters = inspect.signature(constructor).parameters
    twice = sorted(fields.keys() & context.keys())
    if twice:
        raise UserError(f"{where}.{twice[0]} is set by the loop itself: remove it from the config")
    takes_any = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())
    names = [n for n, p in parameters.items() if p.kind is not inspect.Parameter.VAR_KEYWORD]
    for name in [*fields, *context]:
        if name not in names and not takes_any:
            raise UserError(
                f"{where} has a field {name!r}, which {what} does not take"
                f"{_did_you_mean(name, names)}"
            )
    for name in names:
        if parameters[name].default is inspect.Parameter.empty and not (
            name in fields or name in context or parameters[name].kind.name == "VAR_POSITIONAL"
        ):
            raise UserError(f"{where} lacks the field {name!r}, which {what} needs")


def _convert(key: str, text: str, default: Any) -> Any:
    """`text` as a value of the type of `default`."""
    if isinstance(default, str):
        return text
    try:
        value = {"true": True, "false": False}.get(text.lower())
        value = ast.literal_eval(text) if value is None else value
    except (ValueError, SyntaxError):
        value = text
    if isinstance(default, float) and type(value) is int:
        value = float(value)
    if default is not None and type(value) is not type(default):
        kind = type(default).__name__
        raise UserError(f"the config's argument {key!r} must be of type {kind}, not {text!r}")
    return value


def _tuples(config: ConfigDict) -> None:
    """Makes tuples of all lists in place, however deep."""

    def convert(value: Any) -> Any:
        return tuple(map(convert, value)) if isinstance(value, (list, tuple)) else value

    for name in list(config):
        value = config[name]
        if isinstance(value, ConfigDict):
            _tuples(value)
        elif isinstance(value, (list, tuple)):
            del config[name]  # a field remembers its first type, list
            config[name] = convert(value)


def flatten(value: dict, prefix: str = "") -> dict[str, Any]:
    """Nested dicts as one, by the names from the top: {"optimizer.b1": 0.9}."""
    flat = {}
    for name, item in value.items():
        if isinstance(item, dict):
            flat.update(flatten(item, f"{prefix}{name}."))
        else:
            flat[prefix + name] = copy.deepcopy(item)
    return flat


def _did_you_mean(name: str, names: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, [str(n) for n in names], n=3, cutoff=0.6)
    return f"; did you mean {' or '.join(repr(c) for c in close)}?" if close else ""


def _not_json(value: Any) -> Any:
    raise UserError(
        f"the config holds {value!r}: use numbers, strings, booleans, None, tuples and dicts only"
    )


def _one_line(text: str) -> str:
    return " ".join(text.split())
