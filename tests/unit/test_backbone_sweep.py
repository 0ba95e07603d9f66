"""Awkward networks of the sweep that docs/backbones.md comes from, each from file to service."""

import pytest

from tests.bench.backbones import check_backbone, format_table

AWKWARD = (
    "torchvision:mnasnet0_5",  # needs the version of its class
    "timm:levit_128s",  # two heads of a norm and a linear layer; sizes on both sides of the cut
    "timm:efficientvit_m0",
    "timm:iformer_t",
    "timm:caformer_s18",  # a head of several layers
)


@pytest.mark.slow
@pytest.mark.parametrize("architecture", AWKWARD)
def test_a_network_loads_freezes_trains_and_is_served(architecture, tmp_path):
    assert "float32 steps" in check_backbone(architecture, tmp_path)


def test_the_page_lists_first_what_does_not_work():
    rows = [
        {"module": module, "architecture": f"timm:{module}", "million_parameters": 1.0}
        | {"result": result, "reason": "a | b"}
        for module, result in (("alpha", "works"), ("beta", "refused"), ("gamma", "works"))
    ]
    table = format_table(rows)
    assert "3 networks: 2 works, 1 refused." in table
    lines = [line for line in table.splitlines() if line.startswith("| ")][1:]
    assert [line.split(" | ")[0] for line in lines] == ["| beta", "| alpha", "| gamma"]
    assert "a \\| b" in lines[0]
