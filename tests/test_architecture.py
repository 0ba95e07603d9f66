"""The architecture as loops over the source: layers, imports, sizes, names."""

import ast
import re
import statistics
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parent.parent
LAYERS = (
    *("core", "data", "model", "stats", "training", "evaluation", "drift", "registry"),
    *("promotion", "operations", "materializers", "steps", "pipelines", "cli"),
)
TOP_LEVEL = ("materializers", "steps", "pipelines")
FORBIDDEN_NAMES = {"utils", "common", "helpers", "types", "misc"}
SOURCES = sorted(
    path for folder in ("regraft", *TOP_LEVEL) for path in (ROOT / folder).rglob("*.py")
)
IN_LAYERS = [path for path in SOURCES if path != ROOT / "regraft" / "__init__.py"]
# Packages that may import zenml: everything above the core, which runs without it.
ZENML = {"materializers", "steps", "pipelines", "cli"}
MLFLOW = {"registry", "cli"}


@cache
def text_of(path):
    return path.read_text(encoding="utf-8")


@cache
def tree(path):
    return ast.parse(text_of(path))


@cache
def imports(path):
    """Dotted names imported anywhere in the file, "from a import b" as "a.b" too."""
    names = []
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return names


def layer_of(path):
    parts = path.relative_to(ROOT).parts
    return parts[1].removesuffix(".py") if parts[0] == "regraft" else parts[0]


def layers_imported(path):
    """Layers that the file imports, its own included."""
    layers = set()
    for name in imports(path):
        top, _, rest = name.partition(".")
        layer = rest.partition(".")[0] if top == "regraft" else top
        if layer in LAYERS:
            layers.add(layer)
    return layers


def test_every_file_is_in_a_known_layer():
    assert {layer_of(path) for path in IN_LAYERS} == set(LAYERS)


def test_imports_go_down_only():
    upward = {}
    for path in IN_LAYERS:
        above = LAYERS[LAYERS.index(layer_of(path)) + 1 :]
        names = sorted(layers_imported(path) & set(above))
        upward |= {str(path): names} if names else {}
    assert upward == {}


def test_only_the_upper_layers_import_zenml_and_only_the_registry_mlflow():
    for path in IN_LAYERS:
        used = {name.split(".")[0] for name in imports(path)}
        assert "zenml" not in used or layer_of(path) in ZENML, path
        assert "mlflow" not in used or layer_of(path) in MLFLOW | {"pipelines"}, path


def test_the_picture_in_the_docs_names_every_layer():
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    picture = text.partition("```")[2].partition("```")[0]
    drawn = re.findall(r"^ +(?:regraft/)?(\w+)/ ", picture, re.MULTILINE)
    assert drawn == list(reversed(LAYERS))


def test_no_module_has_a_name_without_meaning():
    assert not [path for path in SOURCES if path.stem in FORBIDDEN_NAMES]


def test_no_file_passes_400_lines():
    lengths = {path: len(text_of(path).splitlines()) for path in SOURCES}
    assert {path: length for path, length in lengths.items() if length > 400} == {}


@cache
def functions(path):
    return [node for node in ast.walk(tree(path)) if isinstance(node, ast.FunctionDef)]


def length(node):
    """Lines of a function without its docstring."""
    body = node.body
    if isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant):
        body = body[1:] or body
    return body[-1].end_lineno - body[0].lineno + 1


def test_functions_have_at_most_60_lines_and_8_parameters():
    for path in SOURCES:
        for node in functions(path):
            assert length(node) <= 60, (path, node.name)
            names = [argument.arg for argument in node.args.args + node.args.kwonlyargs]
            assert len([name for name in names if name not in ("self", "cls")]) <= 8, (
                path,
                node.name,
            )


def test_half_of_the_functions_have_at_most_twelve_lines():
    assert statistics.median(length(node) for path in SOURCES for node in functions(path)) <= 12


def test_a_step_calls_one_core_function_and_has_no_logic():
    for path in (ROOT / "steps").glob("*.py"):
        for node in functions(path):
            if any("step" in ast.unparse(decorator) for decorator in node.decorator_list):
                assert length(node) <= 12, path
                inner = {type(part) for line in node.body for part in ast.walk(line)}
                assert not inner & {ast.If, ast.For, ast.While, ast.Try, ast.BinOp}, path


def test_nothing_catches_every_exception():
    for path in SOURCES:
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.ExceptHandler):
                caught = ast.unparse(node.type) if node.type else ""
                assert caught not in ("", "Exception"), path


def test_nothing_is_loaded_by_pickle():
    for path in SOURCES:
        text = text_of(path)
        assert "pickle.load" not in text, path
        assert "weights_only=False" not in text, path
        if re.search(r"(?<!safetensors\.)torch\.load\(", text):
            assert "weights_only=True" in text, path


def test_every_kind_of_error_has_a_test_that_expects_it():
    """By code that uses the class, not by its name in a text; raising it in a test is no proof."""
    errors = tree(ROOT / "regraft" / "core" / "errors.py")
    classes = [node for node in errors.body if isinstance(node, ast.ClassDef)]
    bases = {ast.unparse(base) for node in classes for base in node.bases}
    used = set()
    for path in (ROOT / "tests").rglob("test_*.py"):
        parsed = tree(path)
        raised = {
            id(part) for n in ast.walk(parsed) if type(n) is ast.Raise for part in ast.walk(n)
        }
        names = [node for node in ast.walk(parsed) if isinstance(node, ast.Name)]
        used |= {node.id for node in names if id(node) not in raised}
    assert {node.name for node in classes} - bases - used == set()


def test_every_step_is_reachable_from_a_pipeline():
    text = "".join(text_of(path) for path in (ROOT / "pipelines").glob("*.py"))
    for path in (ROOT / "steps").glob("*.py"):
        if path.stem not in ("__init__", "caching"):
            assert f"steps.{path.stem} import" in text, path
