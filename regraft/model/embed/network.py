"""A network as it runs without gradients: traced, its norms folded into its convolutions."""

import copy
from collections import Counter
from collections.abc import Iterable, Iterator

import torch
from timm.layers.norm_act import BatchNormAct2d
from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torch.nn.utils.parametrize import is_parametrized

from regraft.model.backbone import Preprocessing
from regraft.model.embed.compute import Compute, keep_freed_memory
from regraft.model.pixels import normalise

BATCH_SIZE = 32  # for a pass without gradients; larger was no faster on CPU cores (measured)
# What fx raises on a network whose way depends on the values that pass through it.
UNTRACEABLE = (fx.proxy.TraceError, TypeError, RuntimeError, ValueError, NameError, AttributeError)
FOLDING_TOLERANCE = 1e-3  # of the largest output; lite0 differs by 1e-5 (measured)
CHECKED_SIDES = (96, 224, 256)  # pixels; the smallest is cheap, networks with attention want theirs


class _LeafTracer(fx.Tracer):
    """Sees the network as a chain of its smallest modules; timm's look at sizes inside theirs."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        has_parts = any(True for _ in m.children())
        is_norm = isinstance(m, nn.BatchNorm2d)  # timm's carries its activation as a part
        return not has_parts or is_norm or super().is_leaf_module(m, module_qualified_name)


def trace(network: nn.Module) -> fx.GraphModule:
    """The network as a graph over its own modules, nothing copied.

    Raises:
        UNTRACEABLE: its way depends on what passes through it.
    """
    return fx.GraphModule(network, _LeafTracer().trace(network))


def prepared(network: nn.Module, compute: Compute) -> nn.Module:
    """A copy of the network for passes without gradients: eval mode, folded, on its device."""
    folded = _folded(network).to(compute.device, compute.dtype)
    return folded.to(memory_format=torch.channels_last).eval()


def forward(
    network: nn.Module, batches: Iterable[Tensor], preprocessing: Preprocessing, compute: Compute
) -> Iterator[Tensor]:
    """What the network answers to each batch, without gradients.

    Args:
        network: as prepared() made it for the same compute.
        batches: each (B, 3, S, S) uint8, preprocessed but not normalised.

    Yields:
        (B, ...) on the CPU, in the precision of the compute.
    """
    keep_freed_memory()
    on_gpu = compute.device.type == "cuda"
    for pixels in batches:
        with torch.inference_mode():
            pinned = pixels.pin_memory() if on_gpu else pixels
            normal = normalise(pinned.to(compute.device, non_blocking=True), preprocessing)
            output = network(normal.to(compute.dtype)).cpu()  # (B, ...)
        yield output


def _folded(network: nn.Module) -> nn.Module:
    """The network with each norm folded into the convolution before it, a third faster (measured).

    Where it cannot be traced, or the folded one answers otherwise, it stays as it is.
    """
    plain = copy.deepcopy(network).cpu().float().eval()
    try:
        folded = trace(plain)  # it shares the modules, but what is set below stays its own
    except UNTRACEABLE:
        return plain
    modules = dict(folded.named_modules())
    pairs = list(_foldable(folded, modules))
    for conv, norm in pairs:
        fused = fuse_conv_bn_eval(modules[conv], modules[norm])
        folded.set_submodule(conv, fused)
        folded.set_submodule(norm, _after(modules[norm]))
    return folded if pairs and _agree(folded, plain) else plain


def _foldable(graph: fx.GraphModule, modules: dict[str, nn.Module]) -> Iterator[tuple[str, str]]:
    """Names of convolutions and of the norms that alone read them, each used once."""
    calls = Counter(node.target for node in graph.graph.nodes if node.op == "call_module")
    for norm in graph.graph.nodes:
        conv = norm.all_input_nodes[0] if len(norm.all_input_nodes) == 1 else norm
        if norm.op != "call_module" or conv.op != "call_module" or len(conv.users) != 1:
            continue
        names = (str(conv.target), str(norm.target))
        is_once = all(calls[name] == 1 for name in names)
        if is_once and _is_plain(modules[names[0]]) and _has_still(modules[names[1]]):
            yield names


def _is_plain(conv: nn.Module) -> bool:
    """Whether it is a convolution whose weight is a parameter, not computed from others."""
    return isinstance(conv, nn.Conv2d) and not is_parametrized(conv)


def _has_still(norm: nn.Module) -> bool:
    """Whether it is a norm that uses the statistics of its training; some have only a batch's."""
    return isinstance(norm, nn.BatchNorm2d) and norm.running_mean is not None


def _after(norm: nn.Module) -> nn.Module:
    """What is left of a folded norm: timm's has an activation."""
    return norm.act if isinstance(norm, BatchNormAct2d) else nn.Identity()


def _agree(folded: nn.Module, plain: nn.Module) -> bool:
    """Whether both answer alike to a random photo, of the first side that the network takes."""
    for side in CHECKED_SIDES:
        photo = torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(0))
        with torch.inference_mode():
            try:
                expected = plain(photo)  # first: fx prints what it fails at
            except (RuntimeError, AssertionError):  # it takes photos of its own size only
                continue
            difference = (folded(photo) - expected).abs().max()
            return bool(difference <= FOLDING_TOLERANCE * expected.abs().max())
    return False
