"""Cutting a network in two: the frozen part runs once per photo, only the rest trains."""

from collections.abc import Callable
from dataclasses import dataclass

from timm.layers import DropBlock2d, DropPath
from torch import fx, nn
from torch.nn import functional
from torchvision.ops import StochasticDepth

from regraft.model.embed import UNTRACEABLE, trace
from regraft.model.freeze import FreezePlan

_RANDOM_FUNCTIONS: frozenset[Callable[..., object]] = frozenset(
    (functional.dropout, functional.dropout1d, functional.dropout2d, functional.dropout3d)
)


@dataclass(frozen=True)
class Cut:
    """A network in two parts that share its modules.

    frozen: (B, 3, S, S) -> (B, ...), constant for a photo during the training.
    tail: (B, ...) -> logits (B, K); uses the modes of the network's own modules.
    at: the name of the value between the parts, and of the first thawed block.
    """

    frozen: fx.GraphModule
    tail: fx.GraphModule
    at: str


def cut(network: nn.Module, plan: FreezePlan) -> Cut | None:
    """Return the network cut at the end of its frozen part, or None if it must be trained whole.

    A cut is impossible if nothing is frozen below, the control flow depends on the photo, thawed
    parts read more than one frozen value, or a function outside of a module drops values at random.

    Args:
        network: its modes set for training by set_modes().
    """
    try:
        graph = trace(network).graph
    except UNTRACEABLE:
        return None
    if any(node.target in _RANDOM_FUNCTIONS for node in graph.nodes):
        return None
    modules = dict(network.named_modules())
    constant: set[fx.Node] = set()
    for node in graph.nodes:
        is_fed = node.op != "output" and constant.issuperset(node.all_input_nodes)
        if is_fed and _is_constant(node, modules, plan):
            constant.add(node)
    frozen_nodes = set(constant)
    inputs = _inputs_of_thawed(graph, constant)
    while derived := [node for node in inputs if _depends_on(node, inputs)]:
        # Such as a pooling or a size: computed again above the cut, and below it if needed there.
        constant.difference_update(derived)
        inputs = _inputs_of_thawed(graph, constant)
    if len(inputs) != 1 or inputs[0].op == "placeholder":
        return None
    thawed = next(p.block for p in plan.parameters if p.lr_factor > 0)
    return Cut(
        _frozen_part(network, graph, frozen_nodes, inputs[0]),
        _tail(network, graph, constant, inputs[0]),
        f"{inputs[0].name} before {thawed}",
    )


def _inputs_of_thawed(graph: fx.Graph, constant: set[fx.Node]) -> list[fx.Node]:
    """Return the frozen values that thawed nodes read, without parameters."""
    frozen = [node for node in graph.nodes if node in constant and node.op != "get_attr"]
    return [node for node in frozen if set(node.users) - constant]


def _depends_on(node: fx.Node, others: list[fx.Node]) -> bool:
    waiting, visited = list(node.all_input_nodes), set[fx.Node]()
    while waiting:
        source = waiting.pop()
        if source in others:
            return True
        if source not in visited:
            visited.add(source)
            waiting += source.all_input_nodes
    return False


def _is_constant(node: fx.Node, modules: dict[str, nn.Module], plan: FreezePlan) -> bool:
    """Return whether a node with constant inputs has a constant output."""
    name = str(node.target)
    if node.op == "get_attr":
        return name in plan.frozen or not any(p.name == name for p in plan.parameters)
    if node.op != "call_module":
        return True
    module = modules[name]
    parameters = [f"{name}.{own}" for own, _ in module.named_parameters()]
    has_moving_buffers = any(True for _ in module.buffers()) and plan.norm_statistics == "moving"
    if not parameters and (has_moving_buffers or _is_random(module)):
        return False
    return plan.frozen.issuperset(parameters)


def _is_random(module: nn.Module) -> bool:
    """Return whether the module drops values at random in its present mode."""
    if not module.training:
        return False
    match module:
        case nn.Dropout() | nn.Dropout1d() | nn.Dropout2d() | nn.Dropout3d() | StochasticDepth():
            return bool(module.p)
        case DropPath() | DropBlock2d():
            return bool(module.drop_prob)
        case _:
            return isinstance(module, nn.AlphaDropout | nn.FeatureAlphaDropout)


def _frozen_part(
    network: nn.Module, graph: fx.Graph, frozen_nodes: set[fx.Node], last: fx.Node
) -> fx.GraphModule:
    below = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    for node in graph.nodes:
        if node in frozen_nodes:
            copies[node] = below.node_copy(node, copies.__getitem__)
    below.output(copies[last])
    return _module(network, below)


def _tail(
    network: nn.Module, graph: fx.Graph, constant: set[fx.Node], last: fx.Node
) -> fx.GraphModule:
    above = fx.Graph()
    copies = {last: above.placeholder("boundary")}
    for node in graph.nodes:
        if node not in constant or (node.op == "get_attr" and set(node.users) - constant):
            copies[node] = above.node_copy(node, copies.__getitem__)
    return _module(network, above)


def _module(network: nn.Module, graph: fx.Graph) -> fx.GraphModule:
    """Return the graph over the network's modules, without unused nodes."""
    part = fx.GraphModule(network, graph)
    part.graph.eliminate_dead_code()
    part.delete_all_unused_submodules()
    part.recompile()
    return part
