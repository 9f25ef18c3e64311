"""Configs: loading, overriding, instantiating, and one sentence for each mistake."""

import textwrap

import pytest
from ml_collections import ConfigDict

from capjax import config as config_lib
from capjax.config_checks import validate
from capjax.errors import UserError

SCRIPT = """
    from capjax.config import base, parse_arg

    def get_config(arg=""):
        arg = parse_arg(arg, guidance=1.0, name="x")
        config = base()
        config.model = dict(name="toy", width=8)
        config.evals.retrieval = dict(type="toy", every=10, scales=[1, 2.5], nested=dict(k=[1]))
        config.seed = 3 if arg.runlocal else 4
        config.optimizer.learning_rate = arg.guidance
        return config
"""


@pytest.fixture
def script(tmp_path):
    path = tmp_path / "config.py"
    path.write_text(textwrap.dedent(SCRIPT))
    return str(path)


def written(tmp_path, body):
    path = tmp_path / "bad.py"
    path.write_text(textwrap.dedent(body))
    return str(path)


def test_a_script_is_loaded_with_its_argument_and_overrides(script):
    config = config_lib.load(
        f"{script}:guidance=2,runlocal",
        [
            "--config.steps=7",
            "--config.optimizer.schedule.name=linear",
            "--config.optimizer.b2=0.95",
            "--config.data.flip=true",
            "--config.data.crop_scale=(0.5, 1.0)",
            "--config.evals.retrieval.scales=(1, 3)",
            "--config.model.width=16",
            "--config.init_from=/some/where",
        ],
    )
    assert config.seed == 3
    assert config.steps == 7
    assert config.optimizer.learning_rate == 2.0
    assert config.optimizer.schedule.name == "linear"
    assert config.optimizer.b2 == 0.95
    assert config.data.flip is True
    assert config.data.crop_scale == (0.5, 1.0)
    assert config.evals.retrieval.scales == (1, 3)
    assert config.model.width == 16
    assert config.init_from == "/some/where"
    assert config.is_locked


def test_the_argument_is_optional(script):
    assert config_lib.load(script).seed == 4


def test_the_base_is_valid_and_not_shared():
    config = config_lib.base()
    validate(config)
    config.steps = 5
    assert config_lib.base().steps != 5


def test_json_brings_back_the_same_config(script):
    config = config_lib.load(script, ["--config.data.crop_scale=(0.5, 1.0)"])
    back = config_lib.from_json(config_lib.to_json(config))
    assert back == config
    assert config_lib.to_json(back) == config_lib.to_json(config)
    assert back.sharding == ("tensor",)
    assert back.evals.retrieval.nested.k == (1,)
    assert config_lib.load(script).data.crop_scale is None


def test_differences_name_fields_and_values(script):
    old = config_lib.load(script)
    new = config_lib.load(script, ["--config.steps=5", "--config.evals.retrieval.every=3"])
    assert config_lib.differences(old, old) == []
    assert config_lib.differences(old, new) == [
        "evals.retrieval.every: 10 -> 3",
        "steps: 1000 -> 5",
    ]
    assert config_lib.differences(old, new, ignore=("steps", "evals.*.every")) == []


def test_parse_arg_gives_the_types_of_its_defaults():
    defaults = {"size": 1, "name": "a", "rate": 0.5, "flag": False, "off": True}
    arg = config_lib.parse_arg("size=9,name=b,rate=2,flag,off=false", **defaults)
    given = {"size": 9, "name": "b", "rate": 2.0, "flag": True, "off": False}
    assert arg.to_dict() == {"runlocal": False, **given}
    assert isinstance(arg.rate, float)
    assert config_lib.parse_arg("", size=1).size == 1
    assert config_lib.parse_arg(None, size=1).runlocal is False


@pytest.mark.parametrize(
    ("arg", "message"),
    [
        ("sise=3", r"no argument 'sise'; did you mean 'size'\?.*it takes name, runlocal, size"),
        ("size=big", "'size' must be of type int, not 'big'"),
        ("size=1.5", "'size' must be of type int, not '1.5'"),
        ("size", "'size' must be of type int"),
        ("runlocal=3", "'runlocal' must be of type bool"),
    ],
)
def test_parse_arg_names_what_is_wrong(arg, message):
    with pytest.raises(UserError, match=message):
        config_lib.parse_arg(arg, size=1, name="a")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("--config.stepss=3", r"config has no field 'stepss' .*; did you mean 'steps'\?"),
        ("--config.optimizer.learning_rat=3", "config.optimizer has no field 'learning_rat'"),
        ("--config.steps.more=3", "config.steps has no field 'more'"),
        ("--config.steps=3.5", "config.steps=3.5: .*int"),
        ("--config.steps=many", "config.steps=many"),
        ("--config.data.flip=7", "config.data.flip=7"),
        ("--config.optimizer.b1=high", "config.optimizer.b1=high"),
        ("--config.model=3", "config.model=3"),
        ("--config.steps", "overrides look like --config.seed=1"),
        ("steps=3", "overrides look like --config.seed=1"),
        ("--seed=3", "overrides look like --config.seed=1"),
    ],
)
def test_an_override_that_cannot_be_is_named(script, override, message):
    with pytest.raises(UserError, match=message):
        config_lib.load(script, [override])


def test_a_field_without_type_is_named(tmp_path):
    path = written(
        tmp_path,
        """
        from capjax.config import base
        def get_config():
            config = base()
            config.model.dropout = None
            return config
        """,
    )
    with pytest.raises(UserError, match=r"config.model.dropout is None, so its type is unknown"):
        config_lib.load(path, ["--config.model.dropout=0.1"])


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (
            "config.stepss = 3",
            r"bad.py', line 5: there is no field 'stepss'; did you mean 'steps'\?",
        ),
        ("config.optimizer.learn_rate = 3", "no field 'learn_rate'; did you mean 'learning_rate'"),
        ("config.optimizer.update(dict(lr=3))", "there is no field 'lr'"),
        ("config.steps = 'many'", "line 5: .*many"),
        ("config.evals.a.every = 3", "line 5: .*no field 'a'|line 5"),
        ("return 3", "must return a ConfigDict, not int"),
        ("return", "must return a ConfigDict, not NoneType"),
        ("config.seed = = 3", "line 5: invalid syntax"),
    ],
)
def test_a_script_with_a_mistake_is_named(tmp_path, body, message):
    path = written(
        tmp_path,
        f"""
        from capjax.config import base
        def get_config():
            config = base()
            {body}
            return config
        """,
    )
    with pytest.raises(UserError, match=message):
        config_lib.load(path)


def test_a_mistake_is_named_where_the_path_is_relative(tmp_path, monkeypatch):
    written(tmp_path, "from capjax.config import base\ndef get_config():\n    base().stepss = 3\n")
    (path,) = tmp_path.glob("*.py")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="line 3: there is no field 'stepss'"):
        config_lib.load(path.name)


def test_a_bug_in_a_script_keeps_its_traceback(tmp_path):
    path = written(tmp_path, "def get_config():\n    return None + 1\n")
    with pytest.raises(TypeError, match="unsupported operand"):
        config_lib.load(path)


def test_files_that_are_no_configs_are_named(tmp_path):
    with pytest.raises(UserError, match=r"none.py' does not exist"):
        config_lib.load(str(tmp_path / "none.py"))
    (tmp_path / "config.txt").write_text("")
    with pytest.raises(UserError, match="is not a Python file"):
        config_lib.load(str(tmp_path / "config.txt"))
    with pytest.raises(UserError, match="does not define get_config"):
        config_lib.load(written(tmp_path, "x = 1"))
    with pytest.raises(UserError, match="takes no argument, but 'a=3' was given"):
        config_lib.load(written(tmp_path, "def get_config():\n    return {}") + ":a=3")
    with pytest.raises(UserError, match="not JSON"):
        config_lib.from_json("{")
    with pytest.raises(UserError, match="not an object"):
        config_lib.from_json("3")
    with pytest.raises(UserError, match="lacks the field"):
        validate(ConfigDict({"seed": 1}))


class Thing:
    def __init__(self, *, size, context, scale=1.0):
        self.size, self.context, self.scale = size, context, scale


class Anything:
    def __init__(self, **kwargs):
        self.kwargs = kwargs


def test_a_section_becomes_an_object():
    section = ConfigDict({"name": __name__, "size": {"a": 1}})
    thing = config_lib.instantiate(section, "Thing", context=5)
    assert (thing.size, thing.context, thing.scale) == ({"a": 1}, 5, 1.0)
    assert type(thing.size) is dict
    section = ConfigDict({"type": __name__, "every": 3, "name": "x"})
    assert config_lib.instantiate(section, "Anything").kwargs == {"name": "x"}


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"size": 1}, "config.x names no module: set its 'name'"),
        ({"name": "no.such.module", "size": 1}, "'no.such.module', which cannot be found"),
        ({"name": "capjax.nothing", "size": 1}, "'capjax.nothing', which cannot be found"),
        ({"name": "capjax.errors", "size": 1}, "'capjax.errors' offers no 'Thing'"),
        ({"name": __name__, "size": 1, "scal": 2}, r"field 'scal'.*did you mean 'scale'\?"),
        ({"name": __name__}, "config.x lacks the field 'size'"),
        ({"name": __name__, "size": 1, "context": 2}, "config.x.context is set by the loop"),
    ],
)
def test_a_section_that_cannot_be_built_is_named(section, message):
    with pytest.raises(UserError, match=message):
        config_lib.instantiate(ConfigDict(section), "Thing", where="config.x", context=5)


def test_a_module_that_lacks_an_import_keeps_its_traceback(tmp_path, monkeypatch):
    (tmp_path / "half_there.py").write_text("import not_installed_anywhere\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="not_installed_anywhere"):
        config_lib.instantiate(ConfigDict({"name": "half_there"}), "Thing")


def test_what_json_cannot_hold_is_named():
    with pytest.raises(UserError, match="the config holds"):
        config_lib.to_json(ConfigDict({"a": {1, 2}}))
