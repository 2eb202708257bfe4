"""Checkpoints in the format of `torch.save`, assembled from parts, most of which thousands of runs share.

`torch.save` visits each of about 760 objects of a checkpoint from Python: 3 ms. Here a part that runs share is pickled
once (`Pickled`); a file is then its bytes, the few values of the run, and the tensors.

The format: a ZIP archive without compression of `data.pkl`, a pickle in which a tensor names its storage, of the bytes
of each storage, and of some constant records, which are taken from an archive that the installed torch has written.
"""

import io
import pickle
import struct
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from functools import cache, lru_cache
from typing import Any

import torch
from torch import Tensor

STORAGES = {torch.float32: "FloatStorage", torch.float64: "DoubleStorage", torch.int64: "LongStorage"}
FOLDER = "archive"
NOT_OURS = ".data/serialization_id"  # a hash that torch writes and nothing reads
ALIGNMENT = 64  # bytes, as torch aligns storages
_FLOAT = struct.Struct(">cd")  # as a pickle holds it
_LOCAL, _CENTRAL, _END = (struct.Struct(f"<{form}") for form in ("4s5H3I2H", "4s6H3I5H2I", "4s4H2IH"))
_VERSION, _DATE = 20, 33  # of the archive: 2.0, and 1980-01-01


class Pickled:
    """Plain builtins as a part of a pickle; it has no memo, so that it can be inserted into any other pickle."""

    def __init__(self, value: Any) -> None:
        content = io.BytesIO()
        pickler = pickle.Pickler(content, protocol=2)
        pickler.fast = True  # no memo
        pickler.dump(value)
        self.content = content.getvalue()[2:-1]  # without the protocol's number and the end

    @staticmethod
    def around(values: Mapping[str, Any], key: str) -> tuple[bytes, bytes]:
        """What a dict of plain builtins and `Pickled` has before and after the value of one of its keys."""
        items = [(_leaf(name), list[bytes]()) for name in values]
        for (_, parts), value in zip(items, values.values(), strict=True):
            _pickle(value, parts, [])
        pieces = [b"".join([name, *parts]) for name, parts in items]
        place = list(values).index(key)
        return b"".join([b"}(", *pieces[:place], items[place][0]]), b"".join([*pieces[place + 1 :], b"u"])

    def inside(self, around: tuple[bytes, bytes]) -> "Pickled":
        """The dict of `around` with this as the value that it lacks."""
        whole = Pickled(None)
        whole.content = self.content.join(around)
        return whole


def archive(checkpoint: Mapping[str, Any]) -> bytes:
    """The bytes of a file that `torch.load` reads.

    Args:
        checkpoint: nested dicts and lists of plain builtins, `Pickled` and contiguous tensors on the host, of which
            views are saved without the rest of their storage.

    Raises:
        TypeError: it holds something else.
    """
    pieces, tensors = [b"\x80\x02"], list[Tensor]()
    _pickle(checkpoint, pieces, tensors)
    pieces.append(b".")
    head, tail = _constant_records()
    storages = [(f"data/{i}", tensor.detach().numpy().tobytes()) for i, tensor in enumerate(tensors)]
    return _zipped([("data.pkl", b"".join(pieces)), *head, *storages, *tail])


def read(content: bytes) -> dict[str, Any] | None:
    """Read what `archive` has written, after the checksum was compared; None for an archive of another writer.

    Nothing is executed: of the objects that a pickle may name, only tensors on the host are made.

    Raises:
        ValueError: it is damaged.
    """
    try:
        records = _records(content)
        if records is None:
            return None
        loaded = _Unpickler(records).load()
    except (pickle.UnpicklingError, struct.error, KeyError, IndexError, TypeError, EOFError, AttributeError) as error:
        raise ValueError(f"a checkpoint is damaged ({type(error).__name__})") from error
    if not isinstance(loaded, dict) or not isinstance(loaded.get("state_dict"), dict):
        raise ValueError("it is no checkpoint")
    return loaded


def _records(content: bytes) -> dict[str, bytes] | None:
    """The records of an archive that `_zipped` has written, by their names; None for another one."""
    signature, _, _, count, _, _, offset, _ = _END.unpack(content[-_END.size :])
    if signature != b"PK\5\6":
        return None
    records: dict[str, bytes] = {}
    for _ in range(count):
        fields = _CENTRAL.unpack_from(content, offset)
        size, length, start = fields[9], fields[10], fields[16]
        name = content[offset + _CENTRAL.size : offset + _CENTRAL.size + length].decode()
        folder, _, record = name.partition("/")
        if folder != FOLDER or fields[4] or record == NOT_OURS:
            return None
        start += _LOCAL.size + length + _LOCAL.unpack_from(content, start)[10]
        records[record] = content[start : start + size]
        offset += _CENTRAL.size + length + fields[11] + fields[12]
    return records


class _Unpickler(pickle.Unpickler):
    """Plain builtins and tensors; whatever else a pickle names is refused."""

    def __init__(self, records: Mapping[str, bytes]) -> None:
        content = records["data.pkl"]
        # buffered: of a file without `peek` each instruction is read by a call of its own, three times as slow
        super().__init__(io.BufferedReader(io.BytesIO(content), len(content) + 1))
        self._records = records

    def persistent_load(self, reference: Any) -> Tensor:
        kind, dtype, number, device, count = reference
        if kind != "storage" or device != "cpu" or not isinstance(dtype, torch.dtype):
            raise pickle.UnpicklingError("it holds something else than tensors")
        values = torch.frombuffer(bytearray(self._records[f"data/{number}"]), dtype=dtype)
        if values.numel() != count:
            raise pickle.UnpicklingError("a tensor has another size")
        return values

    def find_class(self, module: str, name: str) -> Any:
        return _KNOWN[module, name]


def _tensor_of(storage: Tensor, offset: int, shape: Any, stride: Any, *_: Any) -> Tensor:
    tensor = storage.view(shape)
    if offset or tensor.stride() != stride:
        raise pickle.UnpicklingError("a tensor is not stored plainly")
    return tensor


class _Function:
    """A function that a pickle may call, but whose attributes it cannot set."""

    __slots__ = ("_call",)

    def __init__(self, call: Callable[..., Any]) -> None:
        self._call = call

    def __call__(self, *arguments: Any) -> Any:
        return self._call(*arguments)

    def __setattr__(self, name: str, value: Any) -> None:
        if hasattr(self, "_call"):
            raise pickle.UnpicklingError("it changes what it names")
        object.__setattr__(self, name, value)


_KNOWN: Mapping[tuple[str, str], Any] = {
    ("torch._utils", "_rebuild_tensor_v2"): _Function(_tensor_of),
    ("collections", "OrderedDict"): _Function(dict),
    **{("torch", name): dtype for dtype, name in STORAGES.items()},
}


def _pickle(value: Any, pieces: list[bytes], tensors: list[Tensor]) -> None:
    match value:
        case Pickled():
            pieces.append(value.content)
        case Tensor():
            pieces.append(_tensor(len(tensors), value.dtype, tuple(value.shape)))
            tensors.append(value)
        case dict():
            pieces.append(b"}(")
            for key, item in value.items():
                pieces.append(_leaf(key))
                _pickle(item, pieces, tensors)
            pieces.append(b"u")
        case list():
            pieces.append(b"](")
            for item in value:
                _pickle(item, pieces, tensors)
            pieces.append(b"e")
        case float():
            pieces.append(_FLOAT.pack(b"G", value))
        case None | bool() | int() | str():
            pieces.append(_leaf(value))
        case _:
            raise TypeError(f"a checkpoint holds plain builtins and tensors, not {type(value).__name__}")


@lru_cache(maxsize=4096, typed=True)  # a number is not the bool that it equals
def _leaf(value: str | int | None) -> bytes:
    return Pickled(value).content


@lru_cache(maxsize=1024)
def _tensor(number: int, dtype: torch.dtype, shape: tuple[int, ...]) -> bytes:
    """The pickled reference to a contiguous tensor whose storage is the record `data/NUMBER`."""
    if dtype not in STORAGES:
        raise TypeError(f"a checkpoint holds tensors of {', '.join(map(str, STORAGES))}, not {dtype}")
    like = torch.empty(shape, dtype=dtype, device="meta")
    storage = _call("torch", STORAGES[dtype])
    persistent = b"(" + _leaf("storage") + storage + _leaf(str(number)) + _leaf("cpu") + Pickled(like.numel()).content
    hooks = _call("collections", "OrderedDict") + b")R"
    arguments = Pickled(0).content + Pickled(shape).content + Pickled(like.stride()).content + b"\x89" + hooks
    return _call("torch._utils", "_rebuild_tensor_v2") + b"(" + persistent + b"tQ" + arguments + b"tR"


def _call(module: str, name: str) -> bytes:
    return f"c{module}\n{name}\n".encode()


@cache
def _constant_records() -> tuple[list[tuple[str, bytes]], list[tuple[str, bytes]]]:
    """The records that the installed torch writes before and after the storages."""
    content = io.BytesIO()
    torch.save({"": torch.zeros(1)}, content)
    records: tuple[list[tuple[str, bytes]], list[tuple[str, bytes]]] = [], []
    after = 0
    with zipfile.ZipFile(content) as written:
        for path in written.namelist():
            name = path.partition("/")[2]
            if name == "data/0":
                after = 1
            elif name not in ("data.pkl", NOT_OURS):
                records[after].append((name, written.read(path)))
    return records


def _zipped(records: Sequence[tuple[str, bytes]]) -> bytes:
    """A ZIP archive without compression, each content at a multiple of ALIGNMENT."""
    pieces, directory, offset = list[bytes](), list[bytes](), 0
    for record, content in records:
        name = f"{FOLDER}/{record}".encode()
        checksum, size = zlib.crc32(content), len(content)
        padding = -(offset + _LOCAL.size + len(name)) % ALIGNMENT
        padding += ALIGNMENT * (0 < padding < 4)  # the smallest extra field has four bytes
        extra = b"FB" + struct.pack("<H", padding - 4) + b"Z" * (padding - 4) if padding else b""
        fields = (_VERSION, 0, 0, 0, _DATE, checksum, size, size, len(name))
        directory.append(_CENTRAL.pack(b"PK\1\2", _VERSION, *fields, 0, 0, 0, 0, 0, offset) + name)
        pieces += [_LOCAL.pack(b"PK\3\4", *fields, len(extra)), name, extra, content]
        offset += _LOCAL.size + len(name) + len(extra) + size
    index = b"".join(directory)
    return b"".join([*pieces, index, _END.pack(b"PK\5\6", 0, 0, len(records), len(records), len(index), offset, 0)])
