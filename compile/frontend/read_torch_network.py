"""From anybody's feed-forward PyTorch module to a float32 network of the layers there are kernels for.

What torch.export gives is read operator by operator. Constants are computed, batch norms and activations become part of
the layer before them, and what has no form is refused by PyTorch's name and place.
"""

from __future__ import annotations

import contextlib
import io
import logging
import re
import textwrap
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.fx import GraphModule, Node
from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode

from thumbnet.compile.errors import UnsupportedOperatorError
from thumbnet.compile.frontend.network_builder import Activation, NetworkBuilder
from thumbnet.compile.frontend.operator_reader import MOVES, SAME, VIEWS, OperatorReader
from thumbnet.compile.frontend.torch_node import Value, attribute_of, flattened, operator_of, path_of
from thumbnet.compile.network.float_network import FloatNetwork
from thumbnet.compile.network.layers import NETWORK_INPUT

_SOFTMAXES = frozenset({"softmax", "log_softmax", "_softmax", "_log_softmax"})


def read_torch_network(module: nn.Module, input_shape: tuple[int, int, int]) -> tuple[FloatNetwork, tuple[str, ...]]:
    """Return the network that a module computes, and what it leaves out of it.

    Parameters
    ----------
    module : nn.Module
        float32; it is put in eval mode. Takes ``[1, C, H, W]`` and returns logits ``[1, classes]``; a softmax at its
        end is left out.
    input_shape : (C, H, W)
        Of one image.

    Returns
    -------
    network : FloatNetwork
        Its layers.
    left_out : tuple of str
        What of the module is not in it, a line each.

    Raises
    ------
    UnsupportedOperatorError
        There is something in it that no layer here computes; named by PyTorch's name and place.
    """
    channels, height, width = input_shape
    try:
        with torch.no_grad(), _silenced():
            exported = torch.export.export(module.eval(), (torch.zeros(1, channels, height, width),)).module()
    except GuardOnDataDependentSymNode as error:
        places = re.findall(r'File "([^"]+)", line (\d+)', str(error))
        where = f" at {Path(places[-1][0]).name}:{places[-1][1]}" if places else ""
        raise UnsupportedOperatorError(
            f"{type(module).__name__}: its code{where} decides by an image's values (an if, a loop or an int() of a"
            " tensor), which has no form here; give it one way for all images"
        ) from error
    except Exception as error:
        raise UnsupportedOperatorError(
            f"{type(module).__name__}: PyTorch can't export it for an image of {channels} x {height} x {width}"
            f" ({_describe(error)})"
        ) from error
    assert isinstance(exported, GraphModule)
    # What nothing reads is not in the network either.
    exported.graph.eliminate_dead_code()
    return _GraphReader(exported, (height, width, channels)).read()


@contextlib.contextmanager
def _silenced() -> Iterator[None]:
    """Keep PyTorch from printing the graphs that it fails on: one line is to say it."""
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with contextlib.redirect_stderr(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)


class _GraphReader:
    """Reads the nodes of one exported graph in their order."""

    def __init__(self, graph: GraphModule, input_shape: tuple[int, int, int]) -> None:
        self.graph = graph
        self.builder = NetworkBuilder(input_shape)
        self.values: dict[Node, Value] = {}
        self.operators = OperatorReader(self.builder, self.values)
        self.left_out: list[str] = []

    def read(self) -> tuple[FloatNetwork, tuple[str, ...]]:
        images = 0
        for node in self.graph.graph.nodes:
            match node.op:
                case "placeholder":
                    images += 1
                    self.values[node] = Activation(NETWORK_INPUT)
                case "get_attr":
                    self.values[node] = attribute_of(self.graph, str(node.target))
                case "call_function":
                    self.values[node] = self._call(node)
                case "output":
                    output = self._output(node)
                # A call_module checks the input's shape.
        if images != 1:
            raise UnsupportedOperatorError(f"the network takes {images} inputs; one image is read here")
        return self.builder.network(output), tuple(self.left_out)

    def _output(self, node: Node) -> Activation:
        outputs = node.args[0]
        [found, *others] = outputs if isinstance(outputs, tuple | list) else [outputs]
        if others or not isinstance(found, Node):
            raise UnsupportedOperatorError(
                f"the network returns {1 + len(others)} values; one row of classes is wanted, return that alone"
            )
        value = self.values[found]
        if not isinstance(value, Activation):
            raise UnsupportedOperatorError("the network's output doesn't depend on the image")
        return self.builder.unpadded(value)

    def _call(self, node: Node) -> Value:
        arguments = [self._value(argument) for argument in node.args]
        keywords = {name: self._value(argument) for name, argument in node.kwargs.items()}
        if not any(isinstance(value, Activation) for value in flattened([*arguments, *keywords.values()])):
            return self._constant(node, arguments, keywords)
        name = operator_of(node)
        if name in _SOFTMAXES and arguments[1] in (1, -1 if node.meta["val"].ndim == 2 else 1) and _ends(node):
            place = path_of(node) or "the network"
            self.left_out.append(
                f"{place}: its {name.strip('_')} is left out; outputs are logits, the largest is the same"
            )
            return arguments[0]
        if name == "sym_size" or str(node.target).startswith("aten._assert"):
            return None
        if _is_mutable(node) and _is_seen_elsewhere(node):
            raise self.operators.refused(node, "it changes in place what is read under another shape; change a copy")
        return self.operators.read(node, arguments, keywords)

    def _constant(self, node: Node, arguments: list[Value], keywords: dict[str, Value]) -> Value:
        """Compute what doesn't depend on the image."""
        if torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ()):
            raise self.operators.refused(node, "its values are others for every image; leave it out in eval mode")
        if _is_mutable(node) and any(argument.op == "get_attr" for argument in node.all_input_nodes[:1]):
            raise self.operators.refused(node, "it changes a buffer from image to image; leave it out in eval mode")
        try:
            with torch.no_grad():
                return node.target(*arguments, **keywords)  # type: ignore[operator]
        except Exception as error:
            raise self.operators.refused(node, f"computing its constants fails ({_describe(error)})") from error

    def _value(self, argument: Any) -> Value:  # noqa: ANN401 - whatever an argument may be
        if isinstance(argument, Node):
            return self.values[argument]
        return [self._value(item) for item in argument] if isinstance(argument, list | tuple) else argument


def _is_mutable(node: Node) -> bool:
    """Tell whether an operator changes its first argument in place."""
    return bool(getattr(getattr(node.target, "_schema", None), "is_mutable", False))


def _is_seen_elsewhere(node: Node) -> bool:
    """Tell whether what an operator changes in place is read through another view, which the graph doesn't say."""
    chain = [node, node.all_input_nodes[0]]
    while operator_of(chain[-1]) in VIEWS:
        chain.append(chain[-1].all_input_nodes[0])
    others = [user for changed in chain[1:] for user in changed.users if user not in chain]
    # Who reads the very tensor comes before, or reads the changed one.
    return any(len(chain) > 2 or operator_of(user) in VIEWS for user in others)


def _ends(node: Node) -> bool:
    """Tell whether a node's values make the network's output, in whatever shape, and nothing else."""
    return all(
        user.op == "output" or (operator_of(user) in MOVES | SAME | _SOFTMAXES and _ends(user)) for user in node.users
    )


def _describe(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return textwrap.shorten(f"{type(error).__name__}: {lines[0] if lines else 'no message'}", 200, placeholder=" ...")
