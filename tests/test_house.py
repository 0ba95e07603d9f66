"""The floors of the house: imports go down only, rooms follow the flow, sizes stay small."""

import ast
import re
import statistics
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parent.parent
FLOORS = ("commands", "pipelines", "steps", "materializers", "regraft")
ROOMS = (
    *("errors", "config", "files", "relocate", "state", "ingest", "split", "backbone", "pixels"),
    *("classifier", "freeze", "embed", "paired", "tune", "transfer", "evaluate", "compare"),
    *("pages", "report", "tracking", "predict", "behaviour", "drift", "registry", "interpolate"),
    *("model_card", "promote", "reproduce", "batch", "advice", "journal", "notify"),
    *("schedule", "status", "retrain"),
)
FORBIDDEN_NAMES = {"utils", "common", "helpers", "types", "misc"}
SOURCES = sorted(path for floor in FLOORS for path in (ROOT / floor).rglob("*.py"))
CORE = ROOT / "regraft"
IN_ROOMS = [path for path in SOURCES if CORE in path.parents and path != CORE / "__init__.py"]


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


def room_of(path):
    return path.relative_to(ROOT / "regraft").parts[0].removesuffix(".py")


def test_imports_go_down_only():
    upward = {}
    for path in SOURCES:
        floor = FLOORS.index(path.relative_to(ROOT).parts[0])
        names = [name for name in imports(path) if name.split(".")[0] in FLOORS[:floor]]
        upward |= {str(path): names} if names else {}
    assert upward == {}


def test_a_room_imports_only_rooms_before_it():
    upward = {}
    for path in IN_ROOMS:
        here = ROOMS.index(room_of(path))
        core = [name.split(".")[1] for name in imports(path) if name.startswith("regraft.")]
        rooms = [room for room in core if room in ROOMS and ROOMS.index(room) > here]
        upward |= {str(path): rooms} if rooms else {}
    assert upward == {}


def test_every_room_is_known_to_the_flow():
    assert {room_of(path) for path in IN_ROOMS} == set(ROOMS)


def test_the_core_never_imports_zenml_and_only_two_rooms_import_mlflow():
    for path in IN_ROOMS:
        used = {name.split(".")[0] for name in imports(path)}
        assert "zenml" not in used, path
        assert "mlflow" not in used or room_of(path) in ("tracking", "registry"), path


def test_no_room_is_named_after_nothing():
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


def test_functions_are_short_and_take_few_parameters():
    for path in SOURCES:
        for node in functions(path):
            assert length(node) <= 40, (path, node.name)
            every = [argument.arg for argument in node.args.args + node.args.kwonlyargs]
            assert len([name for name in every if name not in ("self", "cls")]) <= 6, (
                path,
                node.name,
            )


def test_half_of_the_functions_have_at_most_twelve_lines():
    assert statistics.median(length(node) for path in SOURCES for node in functions(path)) <= 12


def test_a_step_is_a_doorway():
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
    errors = tree(ROOT / "regraft/errors.py")
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
