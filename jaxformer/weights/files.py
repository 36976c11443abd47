"""Files of tensors from outside: safetensors, single or in several parts, and `.npz`. Nothing in them is executed.

A tensor of a safetensors file is read from the mapped file when it is asked for: opening a model of any size takes no
memory. The `safetensors` package checks that offsets neither overlap nor leave the file, and that shapes fit them; what
it lets pass (a name twice, numbers of 4 or 8 bits, gigabytes of header) is refused here.
"""

import math
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from safetensors import SafetensorError, safe_open

from jaxformer.errors import UserError, counted
from jaxformer.reading import BrokenFile, parse_json, read_json, regular

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
DTYPES = {
    **{"F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16},
    **{"I64": np.int64, "I32": np.int32, "I16": np.int16, "I8": np.int8},
    **{"U64": np.uint64, "U32": np.uint32, "U16": np.uint16, "U8": np.uint8, "BOOL": np.bool_},
}
HEADER = 16 * 2**20  # bytes of a header at most; one of 10,000 tensors has 1 MiB
INFLATED = 100  # weights are compressed by a tenth
PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib")
CONVERT = (
    "pickle can run any code; convert it where you trust it:",
    '  python -c "import sys, torch; from safetensors.torch import save_file; '
    "save_file({k: v.contiguous() for k, v in torch.load(sys.argv[1], weights_only=True).items()}, "
    "'model.safetensors')\" {}",
)


@dataclass(frozen=True)
class Stored:
    """A tensor in a file; `np.asarray` reads it."""

    shape: tuple[int, ...]
    """Its shape."""
    dtype: np.dtype
    """Its dtype."""
    read: Callable[[], np.ndarray]
    """Maps it into memory."""

    @property
    def ndim(self) -> int:
        """The number of its axes."""
        return len(self.shape)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self.read(), dtype)


def read_tensors(path: Path) -> dict[str, Any]:
    """The tensors of a file or of a folder by name.

    Args:
      path: a `.safetensors` or `.npz` file, or a folder with model.safetensors, or with its index and parts.

    Raises:
      UserError: there is none, it is damaged, or it is a pickle.
    """
    if path.is_dir():
        if (path / SINGLE).exists():
            return safetensors(path / SINGLE)
        if (path / INDEX).exists():
            return in_parts(path / INDEX)
        pickles = sorted(file.name for file in path.iterdir() if file.suffix in PICKLED)
        if pickles:
            raise refused(path / pickles[0])
        files = sorted(path.glob("*.safetensors"))
        if len(files) == 1:
            return safetensors(files[0])
        raise UserError(
            f"{path}: holds no {SINGLE} and no {INDEX}", "name the file if it is called otherwise"
        )
    if path.suffix in PICKLED:
        raise refused(path)
    readers = {".safetensors": safetensors, ".npz": npz}
    if path.suffix not in readers:
        raise UserError(f"{path}: expected a .safetensors or .npz file, or a folder with {SINGLE}")
    return readers[path.suffix](path)


def refused(path: Path) -> UserError:
    """What is said of a pickle."""
    return UserError(
        f"{path}: is a pickle, which is never loaded; {CONVERT[0]}", CONVERT[1].replace("{}", str(path))
    )


def safetensors(path: Path) -> dict[str, Any]:
    """The tensors of a safetensors file by name, each read when it is asked for.

    Raises:
      BrokenFile: it is none, or damaged, or holds numbers that NumPy does not have.
    """
    try:
        with regular(path).open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            if length > HEADER:
                raise BrokenFile(path, f"its header would have {length:,} bytes; is it a safetensors file?")
            content = stream.read(length)
        with safe_open(path, "numpy"):  # checks offsets, shapes and the size of the file
            pass
        entries = parse_json(content.decode("utf-8"))
    except OSError as error:
        raise BrokenFile(path, f"cannot be read ({error.strerror or error})") from error
    except (SafetensorError, ValueError) as error:
        raise BrokenFile(
            path, f"is no whole safetensors file ({error}); is the download complete?"
        ) from error
    entries.pop("__metadata__", None)
    odd = [
        f"{name} has dtype {entry['dtype']}"
        for name, entry in entries.items()
        if entry["dtype"] not in DTYPES
    ]
    if odd:
        more = f", and {counted(len(odd) - 1, 'more tensor')}" if len(odd) > 1 else ""
        raise BrokenFile(path, f"{odd[0]}{more}; expected one of {', '.join(DTYPES)}")
    return {name: stored(path, 8 + length, entry) for name, entry in entries.items()}


def stored(path: Path, start: int, entry: Mapping[str, Any]) -> Stored:
    """A tensor of a safetensors file whose data begin at byte `start`."""
    shape, dtype = tuple(entry["shape"]), np.dtype(DTYPES[entry["dtype"]])
    place = start + entry["data_offsets"][0]

    def read() -> np.ndarray:
        if 0 in shape:
            return np.zeros(shape, dtype)
        bytes_ = np.memmap(path, np.uint8, "r", place, (int(np.prod(shape)) * dtype.itemsize,))
        return bytes_.view(dtype).reshape(shape)

    return Stored(shape, dtype, read)


def in_parts(index: Path) -> dict[str, Any]:
    """The tensors of the files that an index names, all of which have to lie beside it.

    Raises:
      UserError: the index is damaged, names a file elsewhere, or does not say what is in the files.
    """
    places = (read_json(index, needs={"weight_map": dict}, remedy="is the download complete?") or {})[
        "weight_map"
    ]
    found: dict[str, Any] = {}
    for file in sorted({*map(str, places.values())}):
        if Path(file).name != file or not file.endswith(".safetensors"):
            raise BrokenFile(index, f"{file!r} is no name of a .safetensors file beside it")
        tensors = safetensors(index.with_name(file))
        expected = {name for name, place in places.items() if place == file}
        for name in sorted(expected ^ tensors.keys()):
            said = "is not in" if name in expected else "is also in"
            raise BrokenFile(index, f"{name} {said} {file}; is the download complete?")
        found |= tensors
    return found


def npz(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a `.npz` file by name.

    Raises:
      UserError: there is no such file, it is damaged, or it holds something else than arrays of numbers.
    """
    try:
        with regular(path).open("rb") as stream:
            file = np.load(stream, allow_pickle=False)
            if not isinstance(file, np.lib.npyio.NpzFile) or file.zip is None:
                raise ValueError("it is a single array")
            for member in file.zip.infolist():
                check_member(file.zip, member)
            return {name: file[name] for name in file.files}
    except FileNotFoundError:
        raise UserError(f"{path}: there is no such file") from None
    except (OSError, EOFError, ValueError, MemoryError, NotImplementedError, zipfile.BadZipFile) as error:
        raise UserError(
            f"{path}: cannot be read as a .npz file of arrays ({error})", "is the download complete?"
        ) from None


def check_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> None:
    """Looks whether an array of a `.npz` file has the size that it says, before memory is taken for it.

    Raises:
      ValueError: it has not, or grows far more than weights do when it is unpacked.
    """
    if member.file_size > INFLATED * max(member.compress_size, 2**10):
        raise ValueError(f"{member.filename} would be more than {INFLATED} times as large as in the file")
    with archive.open(member) as stream:
        headers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        version = np.lib.format.read_magic(stream)
        if version not in headers:
            raise ValueError(f"{member.filename} is a .npy file of version {version}")
        shape, _, dtype = headers[version](stream)
        if math.prod(shape) * dtype.itemsize + stream.tell() != member.file_size:
            raise ValueError(f"{member.filename} has not the size of {dtype}{list(shape)}")
