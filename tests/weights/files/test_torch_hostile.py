"""Pickles that would run code, or reach outside of their bytes, are refused and do nothing."""

import collections
import io
import os
import pickle
import struct
import zipfile

import pytest
from peer_files import unpack

from capjax.errors import UserError
from capjax.weights.files import open_tensors

MAGIC = 0x1950A86A20F9469CFC6C


class Runs:
    """Unpickled, it calls `function(*arguments)`."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


def torch_zip(path, data_pkl, **entries):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x/data.pkl", data_pkl)
        for name, data in entries.items():
            archive.writestr(f"x/data/{name}", data)
    return path


def stream(*values):
    return b"".join(pickle.dumps(value, protocol=2) for value in values)


def text(value):
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def integer(value):
    data = value.to_bytes(16, "little", signed=True)
    return b"\x8a" + bytes([len(data)]) + data


def integers(values):
    return b"(" + b"".join(integer(value) for value in values) + b"t"


def tensor_pickle(offset=0, shape=(2,), strides=(1,), count=2, key="0"):
    """A state dict {"w": tensor} in opcodes, with whatever numbers."""
    storage = b"(" + text("storage") + b"ctorch\nFloatStorage\n" + text(key) + text("cpu")
    tensor = b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + integer(count) + b"tQ"
    tensor += integer(offset) + integers(shape) + integers(strides) + b"\x89"
    tensor += b"ccollections\nOrderedDict\n)RtR"
    return b"\x80\x02}" + text("w") + tensor + b"s."


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
@pytest.mark.parametrize("container", ["zip", "zip_under_state_dict", "plain", "legacy"])
def test_code_never_runs(tmp_path, protocol, container):
    marker = tmp_path / "marker"
    bomb = Runs(os.system, f"touch {marker}")
    pickle.loads(pickle.dumps(bomb, protocol))
    assert marker.exists(), "the bomb itself must work"
    marker.unlink()
    path = tmp_path / "x.pt"
    if container.startswith("zip"):
        inner = {"state_dict": {"w": bomb}} if "under" in container else bomb
        torch_zip(path, pickle.dumps(inner, protocol))
    elif container == "plain":
        path.write_bytes(pickle.dumps(bomb, protocol))
    else:
        system = {"little_endian": True}
        path.write_bytes(stream(MAGIC, 1001, system) + pickle.dumps(bomb, protocol) + stream([]))
    with pytest.raises(UserError, match=r"refused|no known format"):
        open_tensors(path)
    assert not marker.exists()


@pytest.mark.parametrize(
    "name",
    [
        "posix system",
        "builtins eval",
        "builtins getattr",
        "torch load",
        "torch.hub load",
        "torch.storage _load_from_bytes",
        "collections Counter",
        "__torch__x A",
        "torch.FloatStorage __init__",
    ],
)
@pytest.mark.parametrize("stacked", [False, True])
def test_any_other_name_is_code(tmp_path, name, stacked):
    module, attribute = name.split()
    opcodes = text(module) + text(attribute) + b"\x93"
    if not stacked:
        opcodes = f"c{module}\n{attribute}\n".encode()
    path = torch_zip(tmp_path / "x.pt", b"\x80\x02" + opcodes + b")R.")
    with pytest.raises(UserError, match=r"holds code .*was refused"):
        open_tensors(path)


def test_a_class_of_torchscript_is_never_more_than_attributes(tmp_path):
    """Its name may be that of a real module of Python: nothing is imported or set."""
    opcodes = b"c__torch__.os\nsystem\n" + text("touch x") + b"\x85R}" + text("w") + b"K\x01sb."
    path = torch_zip(tmp_path / "x.pt", b"\x80\x02" + opcodes)
    with pytest.raises(UserError, match="no tensors by name"):
        open_tensors(path)


@pytest.mark.parametrize(
    "opcodes",
    [
        b"ccollections\nOrderedDict\n}" + text("call") + b"K\x01sb.",  # BUILD on a name
        b"ccollections\nOrderedDict\n]\x85R.",  # would copy a list again and again
        b"K\x01)R.",  # a call of a number
        b"}))s.",  # a tuple as a key
        b"r\xff\xff\xff\xff.",  # a memo of nothing
        b"j\xff\xff\xff\xff.",  # a memo never written
        b"B\xff\xff\xff\xffx.",  # more bytes than there are
        b"\x85.",
        b"t.",
        b".",
        b"",
        b"K\x01Q.",
        b"ctorch\nFloatStorage\n)R.",
        b"c" + b"x" * 2000 + b"\nx\n.",
    ],
)
def test_damaged_pickles_end_in_a_sentence(tmp_path, opcodes):
    path = torch_zip(tmp_path / "x.pt", b"\x80\x02" + opcodes)
    with pytest.raises(UserError, match=r"pickle of .* is damaged"):
        open_tensors(path)


@pytest.mark.parametrize(
    "opcode", [b"\x82\x01", b"i", b"o", b"\x92", b"\x8b", b"\x8f", b"\x96", b"V", b"P0\n"]
)
def test_other_opcodes_are_refused(tmp_path, opcode):
    path = torch_zip(tmp_path / "x.pt", b"\x80\x02" + opcode + b".")
    with pytest.raises(UserError, match=r"opcode .*refused"):
        open_tensors(path)


def test_a_memo_of_a_huge_index_takes_no_memory(tmp_path):
    tensor = tensor_pickle()[:-1] + b"r\xff\xff\xff\xff."
    path = torch_zip(tmp_path / "x.pt", tensor, **{"0": struct.pack("<2f", 1, 2)})
    assert open_tensors(path)["w"].tolist() == [1, 2]


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"shape": (3,)}, "'w'.*outside of its storage"),
        ({"offset": 1}, "'w'.*outside of its storage"),
        ({"strides": (2,)}, "'w'.*outside of its storage"),
        ({"shape": (2, 2), "strides": (1, 1)}, "'w'.*outside of its storage"),
        ({"offset": 2**62}, "pickle of .* is damaged"),
        ({"offset": 2**50}, "'w'.*outside of its storage"),
        ({"strides": (2**50,)}, "'w'.*outside of its storage"),
        ({"strides": (-1,), "offset": 1}, "pickle of .* is damaged"),
        ({"offset": -1}, "pickle of .* is damaged"),
        ({"shape": (-2,)}, "pickle of .* is damaged"),
        ({"shape": (2**62, 2**62)}, "pickle of .* is damaged"),
        ({"shape": (2, 1)}, "pickle of .* is damaged"),
        ({"count": -1}, "pickle of .* is damaged"),
        ({"count": 100, "shape": (100,)}, "'w'.*cut short"),
        ({"key": "9"}, "'w'.*cut short"),
        ({"key": "../0"}, "'w'.*cut short"),
    ],
)
def test_a_view_outside_of_its_storage_is_refused(tmp_path, fields, sentence):
    data = tensor_pickle(**fields)
    path = torch_zip(tmp_path / "x.pt", data, **{"0": struct.pack("<2f", 1, 2), "1": b"beside"})
    with pytest.raises(UserError, match=sentence):
        open_tensors(path)


def test_the_same_opcodes_with_good_numbers_are_read(tmp_path):
    path = torch_zip(
        tmp_path / "x.pt",
        tensor_pickle(offset=1, shape=(2, 2), strides=(0, 2), count=4),
        **{"0": struct.pack("<4f", 1, 2, 3, 4)},
    )
    assert open_tensors(path)["w"].tolist() == [[2, 4], [2, 4]]


def test_a_dtype_beside_the_tensors_is_no_code(tmp_path):
    data = b"\x80\x02}" + text("dtype") + b"ctorch\nbfloat16\ns" + tensor_pickle()[3:]
    path = torch_zip(tmp_path / "x.pt", data, **{"0": struct.pack("<2f", 1, 2)})
    assert list(open_tensors(path)) == ["w"]


def test_modules_nested_in_themselves_end(tmp_path):
    opcodes = b"c__torch__\nA\n)\x81q\x00}" + text("again") + b"h\x00sb."
    path = torch_zip(tmp_path / "x.pt", b"\x80\x02" + opcodes)
    with pytest.raises(UserError, match="without end"):
        open_tensors(path)


@pytest.mark.parametrize(
    ("parts", "sentence"),
    [
        ((1, 1001, {"little_endian": True}, {}, []), "did not write"),
        ((MAGIC, 7, {"little_endian": True}, {}, []), "did not write"),
        ((MAGIC, 1001, {"little_endian": False}, {}, []), "little-endian"),
        ((MAGIC, 1001, {"little_endian": True}, {}, ["0"]), "lists storages"),
        ((MAGIC, 1001, {"little_endian": True}, collections.OrderedDict(), []), "no tensors"),
    ],
)
def test_legacy_files_that_are_none(tmp_path, parts, sentence):
    (tmp_path / "x.pth").write_bytes(stream(*parts))
    with pytest.raises(UserError, match=sentence):
        open_tensors(tmp_path / "x.pth")


def test_two_objects_or_none_in_an_archive(tmp_path):
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        archive.writestr("a/data.pkl", b"")
        archive.writestr("b/data.pkl", b"")
    (tmp_path / "x.pt").write_bytes(data.getvalue())
    with pytest.raises(UserError, match="archive of one object"):
        open_tensors(tmp_path / "x.pt")


def test_an_encrypted_archive_is_named_as_one(tmp_path):
    path = unpack("protocol4.pt", tmp_path)
    data = bytearray(path.read_bytes())
    at = data.index(b"PK\x01\x02")  # the first entry of the central directory
    data[at + 8] |= 1
    path.write_bytes(data)
    with pytest.raises(UserError, match="is encrypted"):
        open_tensors(path)
