"""Weight files from outside: what is whole is read by tensors, what is not is refused in a line."""

import io
import json
import struct
import tracemalloc
import zipfile

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from jaxformer.errors import UserError
from jaxformer.weights.files import Stored, read_tensors

FLOAT = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
TENSORS = {
    "a": np.arange(6, dtype=np.float32).reshape(2, 3),
    "b": np.array([1.5, -2], ml_dtypes.bfloat16),
    "c": np.array([True, False]),
    "d": np.zeros((0, 4), np.int64),
    "e": np.array(3, np.float16),
}


def header(entries, data=b"\0" * 8):
    """A safetensors file: the length of the header, the header, the data."""
    text = entries if isinstance(entries, bytes) else json.dumps(entries).encode()
    return struct.pack("<Q", len(text)) + text + data


def one(**changes):
    """A file with one tensor that is float32 [2] but for the changes."""
    return header({"a": {**FLOAT, **changes}})


def zipped(files, **options):
    """A zip archive."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", **options) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return stream.getvalue()


def array_file(shape, data=b""):
    """A `.npy` file that says it holds float32 of this shape."""
    text = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + data


def pickled():
    """A `.npz` file with an array of objects."""
    stream = io.BytesIO()
    np.savez(stream, a=np.array([{"x": 1}], dtype=object))
    return stream.getvalue()


A, B = header({"a": FLOAT}), header({"b": FLOAT})
PARTS = {"1.safetensors": A, "2.safetensors": B}


def in_parts(weight_map, files=PARTS):
    """A folder with an index."""
    return {"model.safetensors.index.json": json.dumps({"weight_map": weight_map}).encode(), **files}


# What is in a folder, and what is said of it.
HOSTILE = {
    "nothing": ({}, "holds no model.safetensors"),
    "two files of other names": ({"x.safetensors": A, "y.safetensors": A}, "name the file"),
    "an empty file": ({"model.safetensors": b""}, "header too small"),
    "a length alone": ({"model.safetensors": struct.pack("<Q", 8)}, "is no whole safetensors file"),
    "a page of the web": ({"model.safetensors": b"<!DOCTYPE html><html>"}, "is it a safetensors file"),
    "a pointer of Git LFS": ({"model.safetensors": b"version https://git-lfs"}, "is it a safetensors file"),
    "a header of 4 EiB": (
        {"model.safetensors": struct.pack("<Q", 2**62) + b"{}"},
        "is it a safetensors file",
    ),
    "a header of 99 MB": (
        {"model.safetensors": struct.pack("<Q", 99 * 10**6) + b"{}"},
        "is it a safetensors",
    ),
    "a header that ends early": ({"model.safetensors": A[:20]}, "is no whole safetensors file"),
    "data that end early": ({"model.safetensors": A[:-1]}, "is the download complete"),
    "data behind the end": ({"model.safetensors": A + b"\0"}, "file not fully covered"),
    "a hole": ({"model.safetensors": one(data_offsets=[4, 12])}, "is the download complete"),
    "overlapping": ({"model.safetensors": header({"a": FLOAT, "b": FLOAT})}, "is the download complete"),
    "beyond the end": (
        {"model.safetensors": one(data_offsets=[0, 80], shape=[20])},
        "is the download complete",
    ),
    "backwards": ({"model.safetensors": one(data_offsets=[8, 0])}, "is the download complete"),
    "negative offsets": ({"model.safetensors": one(data_offsets=[-8, 0])}, "is the download complete"),
    "a negative shape": ({"model.safetensors": one(shape=[-2])}, "is the download complete"),
    "a shape that does not fit": ({"model.safetensors": one(shape=[3])}, "is the download complete"),
    "a shape that overflows": ({"model.safetensors": one(shape=[2**40, 2**40])}, "overflow"),
    "a shape of 2^62": ({"model.safetensors": one(shape=[2**62])}, "is the download complete"),
    "a fraction in a shape": ({"model.safetensors": one(shape=[0.5])}, "is the download complete"),
    "an unknown dtype": ({"model.safetensors": one(dtype="F99")}, "unknown variant"),
    "numbers of 8 bits": ({"model.safetensors": one(dtype="F8_E4M3", shape=[8])}, "a has dtype F8_E4M3"),
    "numbers of 4 bits": ({"model.safetensors": one(dtype="F4", shape=[16])}, "a has dtype F4"),
    "no offsets": ({"model.safetensors": header({"a": {"dtype": "F32", "shape": [2]}})}, "is the download"),
    "a list": ({"model.safetensors": header([1])}, "is no whole safetensors file"),
    "nested deeply": ({"model.safetensors": header(b"[" * 10**5 + b"]" * 10**5)}, "is no whole"),
    "a name twice": (
        {"model.safetensors": header(f'{{"a":{json.dumps(FLOAT)},"a":{json.dumps(FLOAT)}}}'.encode())},
        "'a' is there twice",
    ),
    "no UTF-8": ({"model.safetensors": header(b'{"\xff": 1}')}, "is no whole safetensors file"),
    "pickles alone": ({"pytorch_model.bin": b"\x80\x02"}, "is a pickle, which is never loaded"),
    "an index that is no JSON": ({"model.safetensors.index.json": b"{"}, "cannot be read as JSON"),
    "an index without a map": ({"model.safetensors.index.json": b"{}"}, "lacks weight_map"),
    "a map that is a list": ({"model.safetensors.index.json": b'{"weight_map": [1]}'}, "is no object"),
    "a part in a folder above": (in_parts({"a": "../1.safetensors"}), "is no name of a .safetensors file"),
    "a part of an absolute path": (
        in_parts({"a": "/etc/passwd.safetensors"}),
        "is no name of a .safetensors",
    ),
    "a part that is a pickle": (in_parts({"a": "1.bin"}), "is no name of a .safetensors file"),
    "a part that is a number": (in_parts({"a": 1}), "is no name of a .safetensors file"),
    "a part that is missing": (in_parts({"a": "1.safetensors"}, {}), "1.safetensors: cannot be read"),
    "a tensor that is missing": (
        in_parts({"a": "1.safetensors", "b": "2.safetensors", "c": "2.safetensors"}),
        "c is not in 2.safetensors",
    ),
    "a tensor that nobody named": (in_parts({"a": "1.safetensors", "x": "2.safetensors"}), "b is also in 2"),
    "a tensor in two parts": (
        in_parts({"a": "1.safetensors", "b": "2.safetensors"}, PARTS | {"2.safetensors": A}),
        "a is also in 2.safetensors",
    ),
    "no archive": ({"x.npz": b"404: not found"}, "cannot be read as a .npz file"),
    "an array of objects": ({"x.npz": pickled()}, "cannot be read as a .npz file"),
    "half an archive": ({"x.npz": zipped({"a.npy": array_file((2,), b"\0" * 8)})[:-30]}, "cannot be read as"),
    "an array of 4 EiB": ({"x.npz": zipped({"a.npy": array_file((2**60,))})}, "cannot be read as a .npz"),
    "an array that ends early": (
        {"x.npz": zipped({"a.npy": array_file((64,), b"\0" * 8)})},
        "cannot be read",
    ),
    "an archive that bursts": (
        {
            "x.npz": zipped(
                {"a.npy": array_file((5 * 10**6,), b"\0" * 2 * 10**7)}, compression=zipfile.ZIP_DEFLATED
            )
        },
        "more than 100 times as large",
    ),
    "a pickle by name": ({"x.pt": b"\x80\x02"}, "is a pickle, which is never loaded"),
    "a file of another kind": ({"x.h5": b"\x89HDF"}, "expected a .safetensors or .npz file"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_hostile_or_broken_is_refused_in_a_line_and_takes_no_memory(name, tmp_path):
    files, said = HOSTILE[name]
    for file, content in files.items():
        (tmp_path / file).write_bytes(content)
    single = [file for file in files if file.startswith("x.")] if len(files) == 1 else []
    tracemalloc.start()
    try:
        with pytest.raises(UserError) as caught:
            read_tensors(tmp_path / single[0] if single else tmp_path)
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert said in " ".join(caught.value.lines)
    assert str(tmp_path) in caught.value.lines[0]
    assert len(caught.value.lines) <= 2
    assert most < 4 * 2**20


def test_tensors_are_read_when_they_are_asked_for(tmp_path):
    save_file(TENSORS, tmp_path / "model.safetensors", metadata={"format": "pt"})
    for source in (tmp_path, tmp_path / "model.safetensors"):
        found = read_tensors(source)
        assert found.keys() == TENSORS.keys()
        for name, expected in TENSORS.items():
            assert isinstance(found[name], Stored)
            assert (found[name].shape, found[name].dtype) == (expected.shape, expected.dtype)
            np.testing.assert_array_equal(np.asarray(found[name]), expected)


def test_a_file_in_parts_is_read_as_a_whole(tmp_path):
    for name, content in in_parts({"a": "1.safetensors", "b": "2.safetensors"}).items():
        (tmp_path / name).write_bytes(content)
    assert {name: tensor.shape for name, tensor in read_tensors(tmp_path).items()} == {"a": (2,), "b": (2,)}


def test_a_large_tensor_is_mapped_and_not_copied(tmp_path):
    save_file({"a": np.zeros((2**22,), np.float32)}, tmp_path / "model.safetensors")
    tracemalloc.start()
    read = np.asarray(read_tensors(tmp_path)["a"])
    assert read.shape == (2**22,)
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()


def test_a_link_to_a_pipe_is_not_waited_for(tmp_path):
    import os

    os.mkfifo(tmp_path / "model.safetensors")
    with pytest.raises(UserError, match="a pipe, a device or a socket"):
        read_tensors(tmp_path)
