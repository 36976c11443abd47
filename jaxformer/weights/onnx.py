"""The weights in an ONNX file, under the names that they had in PyTorch. Nothing of its graph is run."""

from pathlib import Path

import numpy as np

from jaxformer.errors import UserError
from jaxformer.reading import BrokenFile, regular
from jaxformer.weights.convert import Tensors
from jaxformer.weights.resizing import square

ANONYMOUS = "onnx::"  # begins the names of weights that the exporter has transposed or taken apart
POSITIONS = "embeddings.position_embeddings"


def onnx_tensors(path: Path) -> Tensors:
    """The weights of a file by name; a product's kernel [in, out] is given as PyTorch had it, [out, in].

    Raises:
      UserError: there is no such file, it is damaged, its weights are in other files, or the package onnx is missing.
    """
    try:
        import onnx
        from onnx import numpy_helper
    except ImportError as error:
        raise UserError(
            f"{path}: reading it needs the package onnx: pip install 'jaxformer[onnx]'"
        ) from error
    try:
        graph = onnx.load_model_from_string(regular(path).read_bytes()).graph
    except FileNotFoundError:
        raise UserError(f"{path}: there is no such file") from None
    except Exception as error:  # protobuf has several
        raise BrokenFile(path, f"is no whole ONNX file ({str(error).splitlines()[0]})") from error
    weights = {each.name: each for each in graph.initializer}
    if apart := [name for name, each in weights.items() if each.data_location == onnx.TensorProto.EXTERNAL]:
        raise BrokenFile(path, f"{apart[0]} lies in another file; only weights within the file are read")
    found = {name: numpy_helper.to_array(each) for name, each in weights.items()}
    for node in graph.node:
        if node.op_type == "MatMul" and node.input[1].startswith(ANONYMOUS) and node.input[1] in found:
            layer = node.name.strip("/").rpartition("/")[0].replace("/", ".")
            found[f"{layer}.weight"] = found.pop(node.input[1]).T
    return with_positions(found)


def with_positions(found: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The same with a ViT's table of positions, which an exporter takes apart: the class token's row, and the grid."""
    token = next((name for name in found if name.endswith("embeddings.cls_token")), None)
    if token is None or (whole := token.replace("embeddings.cls_token", POSITIONS)) in found:
        return found
    width = found[token].shape[-1]
    loose = {
        name: x
        for name, x in found.items()
        if name.startswith(ANONYMOUS) and x.ndim == 3 and x.shape[2] == width
    }
    first = [name for name, x in loose.items() if x.shape[:2] == (1, 1)]
    grids = [name for name, x in loose.items() if len(x) == 1 and x.shape[1] > 1 and square(x.shape[1])]
    if len(first) != 1 or len(grids) != 1:
        return found
    table = np.concatenate([found.pop(first[0]), found.pop(grids[0])], axis=1)
    return {**found, whole: table}
