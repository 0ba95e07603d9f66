"""Where a network is cut: what is frozen runs once a photo, what is thawed is all that trains."""

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

    frozen: (B, 3, S, S) -> (B, ...), the same for the same photo as long as training goes on.
    tail: (B, ...) -> logits (B, K); trains and is judged as the network's own modules are set.
    at: the value between them, and the first thawed block.
    """

    frozen: fx.GraphModule
    tail: fx.GraphModule
    at: str


def cut(network: nn.Module, plan: FreezePlan) -> Cut | None:
    """The network cut where its frozen part ends; None if it cannot be, and is trained whole.

    It cannot be cut where nothing is frozen below, where its way depends on the photo, where thawed
    parts read more than one frozen value, or where it drops values at random outside of a module
    that does it.

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
    still: set[fx.Node] = set()
    for node in graph.nodes:
        is_fed = node.op != "output" and still.issuperset(node.all_input_nodes)
        if is_fed and _is_still(node, modules, plan):
            still.add(node)
    read = _read_above(graph, still)
    while derived := [node for node in read if _is_made_from(node, read)]:
        still.difference_update(derived)  # such as a pooling: it is made again above the cut
        read = _read_above(graph, still)
    if len(read) != 1 or read[0].op == "placeholder":
        return None
    thawed = next(p.block for p in plan.parameters if p.lr_factor > 0)
    frozen, tail = _parts(network, graph, still, read[0])
    return Cut(frozen, tail, f"{read[0].name} before {thawed}")


def _read_above(graph: fx.Graph, still: set[fx.Node]) -> list[fx.Node]:
    """The frozen values that thawed nodes read; parameters are at hand anyway."""
    frozen = [node for node in graph.nodes if node in still and node.op != "get_attr"]
    return [node for node in frozen if set(node.users) - still]


def _is_made_from(node: fx.Node, others: list[fx.Node]) -> bool:
    waiting, seen = list(node.all_input_nodes), set[fx.Node]()
    while waiting:
        source = waiting.pop()
        if source in others:
            return True
        if source not in seen:
            seen.add(source)
            waiting += source.all_input_nodes
    return False


def _is_still(node: fx.Node, modules: dict[str, nn.Module], plan: FreezePlan) -> bool:
    """Whether a node whose inputs keep still keeps still itself."""
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
    """Whether it drops values at random, as its mode is now."""
    if not module.training:
        return False
    match module:
        case nn.Dropout() | nn.Dropout1d() | nn.Dropout2d() | nn.Dropout3d() | StochasticDepth():
            return bool(module.p)
        case DropPath() | DropBlock2d():
            return bool(module.drop_prob)
        case _:
            return isinstance(module, nn.AlphaDropout | nn.FeatureAlphaDropout)


def _parts(
    network: nn.Module, graph: fx.Graph, still: set[fx.Node], last: fx.Node
) -> tuple[fx.GraphModule, fx.GraphModule]:
    below, above = fx.Graph(), fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    for node in graph.nodes:
        if node in still:
            copies[node] = below.node_copy(node, copies.__getitem__)
    below.output(copies[last])
    copies = {last: above.placeholder("boundary")}
    for node in graph.nodes:
        if node not in still or (node.op == "get_attr" and set(node.users) - still):
            copies[node] = above.node_copy(node, copies.__getitem__)
    return _module(network, below), _module(network, above)


def _module(network: nn.Module, graph: fx.Graph) -> fx.GraphModule:
    """The graph over the network's modules, without what leads nowhere."""
    part = fx.GraphModule(network, graph)
    part.graph.eliminate_dead_code()
    part.delete_all_unused_submodules()
    part.recompile()
    return part
