"""Networks for inference: traced, with each norm folded into the convolution before it."""

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

BATCH_SIZE = 32  # for inference; larger batches were no faster on CPU cores (measured)
# Errors of fx for a network whose control flow depends on its input values.
UNTRACEABLE = (fx.proxy.TraceError, TypeError, RuntimeError, ValueError, NameError, AttributeError)
FOLDING_TOLERANCE = 1e-3  # relative to the largest output; lite0 differs by 1e-5 (measured)
CHECKED_SIDES = (96, 224, 256)  # pixels; 96 is cheap, networks with attention need their own size


class _LeafTracer(fx.Tracer):
    """Trace the network as a chain of its smallest modules; timm's modules inspect sizes inside."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        has_parts = any(True for _ in m.children())
        is_norm = isinstance(m, nn.BatchNorm2d)  # timm's norm has its activation as a child
        return not has_parts or is_norm or super().is_leaf_module(m, module_qualified_name)


def trace(network: nn.Module) -> fx.GraphModule:
    """Return the network as a graph over its own modules, without copies.

    Raises:
        UNTRACEABLE: the control flow depends on the input values.
    """
    return fx.GraphModule(network, _LeafTracer().trace(network))


def prepared(network: nn.Module, compute: Compute) -> nn.Module:
    """Return a copy of the network for inference: in eval mode, norms folded, on the device."""
    folded = _folded(network).to(compute.device, compute.dtype)
    return folded.to(memory_format=torch.channels_last).eval()


def forward(
    network: nn.Module, batches: Iterable[Tensor], preprocessing: Preprocessing, compute: Compute
) -> Iterator[Tensor]:
    """Yield the network's output for each batch, without gradients.

    Args:
        network: the result of prepared() for the same compute.
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
    """Return the network with each norm folded into the convolution before it.

    This is a third faster (measured). A network that cannot be traced, or whose folded outputs
    differ, is returned without folding.
    """
    plain = copy.deepcopy(network).cpu().float().eval()
    try:
        folded = trace(plain)  # shares the modules; the replacements below affect only the graph
    except UNTRACEABLE:
        return plain
    modules = dict(folded.named_modules())
    pairs = list(_foldable(folded, modules))
    for conv, norm in pairs:
        fused = fuse_conv_bn_eval(modules[conv], modules[norm])
        folded.set_submodule(conv, fused)
        folded.set_submodule(norm, _folded_norm(modules[norm]))
    return folded if pairs and _outputs_agree(folded, plain) else plain


def _foldable(graph: fx.GraphModule, modules: dict[str, nn.Module]) -> Iterator[tuple[str, str]]:
    """Yield the names of each foldable convolution and of the norm that is its only reader."""
    calls = Counter(node.target for node in graph.graph.nodes if node.op == "call_module")
    for norm in graph.graph.nodes:
        conv = norm.all_input_nodes[0] if len(norm.all_input_nodes) == 1 else norm
        if norm.op != "call_module" or conv.op != "call_module" or len(conv.users) != 1:
            continue
        names = (str(conv.target), str(norm.target))
        is_once = all(calls[name] == 1 for name in names)
        if (
            is_once
            and _is_plain_convolution(modules[names[0]])
            and _has_running_statistics(modules[names[1]])
        ):
            yield names


def _is_plain_convolution(conv: nn.Module) -> bool:
    """Return whether the module is a convolution whose weight is a parameter, not computed."""
    return isinstance(conv, nn.Conv2d) and not is_parametrized(conv)


def _has_running_statistics(norm: nn.Module) -> bool:
    """Return whether the module is a norm with running statistics, not only the batch's."""
    return isinstance(norm, nn.BatchNorm2d) and norm.running_mean is not None


def _folded_norm(norm: nn.Module) -> nn.Module:
    """Return the module that replaces a folded norm: timm's norms include an activation."""
    return norm.act if isinstance(norm, BatchNormAct2d) else nn.Identity()


def _outputs_agree(folded: nn.Module, plain: nn.Module) -> bool:
    """Return whether both give the same output for a random photo of the first accepted size."""
    for side in CHECKED_SIDES:
        photo = torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(0))
        with torch.inference_mode():
            try:
                expected = plain.forward(photo)  # a call of a traced network prints its failure
            except (RuntimeError, AssertionError):  # the network accepts only its own size
                continue
            difference = (folded.forward(photo) - expected).abs().max()
            return bool(difference <= FOLDING_TOLERANCE * expected.abs().max())
    return False
