"""Names of a package that are imported when they are first used."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest
from tiny import photo_file, write_files

from regraft.core.lazy import lazy_exports

SOURCE = Path(__file__).parents[2] / "regraft"
PACKAGES = sorted(
    path for path in SOURCE.rglob("__init__.py") if "lazy_exports(" in path.read_text("utf-8")
)


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package "parcel" whose module "inside" has the name "content"."""
    (tmp_path / "parcel").mkdir()
    (tmp_path / "parcel" / "inside.py").write_text("content = []\n")
    (tmp_path / "parcel" / "__init__.py").write_text(
        "from regraft.core.lazy import lazy_exports\n"
        "__getattr__ = lazy_exports(__name__, {'inside': ('content', 'missing')})\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    import parcel

    yield parcel
    for name in ("parcel", "parcel.inside"):
        sys.modules.pop(name, None)


def test_a_name_is_imported_on_first_use_and_stored(package):
    assert "parcel.inside" not in sys.modules
    assert package.content == []
    assert "parcel.inside" in sys.modules
    assert vars(package)["content"] is package.content


def test_a_name_that_is_not_exported_is_an_attribute_error(package):
    for name in ("other", "missing", "__wrapped__"):
        with pytest.raises(AttributeError, match=name):
            getattr(package, name)
    assert "parcel.inside" in sys.modules  # for "missing"; "other" alone imports nothing


def test_an_unknown_name_imports_nothing():
    load = lazy_exports("no.such.package", {"module": ("name",)})
    with pytest.raises(AttributeError, match=r"'no\.such\.package' has no attribute 'other'"):
        load("other")


def seen_by_mypy(tree: ast.Module) -> dict[str, tuple[str, ...]]:
    """{submodule: names} of the imports under `if TYPE_CHECKING:`."""
    [branch] = [node for node in tree.body if isinstance(node, ast.If)]
    return {
        node.module.rpartition(".")[2]: tuple(alias.name for alias in node.names)
        for node in branch.body
    }


def loaded_on_use(tree: ast.Module) -> dict[str, tuple[str, ...]]:
    """{submodule: names} that the package gives to lazy_exports()."""
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    [call] = [call for call in calls if getattr(call.func, "id", "") == "lazy_exports"]
    return ast.literal_eval(call.args[1])


@pytest.mark.parametrize("path", PACKAGES, ids=lambda path: path.parent.name)
def test_the_lazy_names_are_those_that_mypy_sees_and_none_is_a_module(path):
    tree = ast.parse(path.read_text("utf-8"))
    exports = loaded_on_use(tree)
    names = {name for group in exports.values() for name in group}
    modules = {file.stem for file in path.parent.iterdir()}
    assert {module: set(group) for module, group in exports.items()} == {
        module: set(group) for module, group in seen_by_mypy(tree).items()
    }
    assert set(exports) <= modules
    assert not names & modules


def dotted(path: Path) -> str:
    return ".".join(path.parent.relative_to(SOURCE.parent).parts)


@pytest.mark.parametrize("path", PACKAGES, ids=lambda path: path.parent.name)
def test_a_lazy_package_has_every_name(path):
    package = importlib.import_module(dotted(path))
    assert [name for name in package.__all__ if not hasattr(package, name)] == []


def test_a_package_is_light_before_a_name_is_used():
    code = (
        "import importlib, sys; [*map(importlib.import_module, sys.argv[1:])]; print(*sys.modules)"
    )
    command = [sys.executable, "-c", code, *map(dotted, PACKAGES)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=200)
    modules = set(done.stdout.split())
    assert set(map(dotted, PACKAGES)) <= modules
    assert len(PACKAGES) >= 5
    assert not {"torch", "torchvision", "timm", "sklearn", "zenml"} & modules


def test_a_data_set_that_is_refused_loads_nothing_that_computes(tmp_path):
    """Whoever names the wrong folder waits for no import of torch."""
    write_files(tmp_path / "one", {"cat/1.png": photo_file(1)})
    write_files(tmp_path / "empty", {"cat/read.me": b""})
    code = (
        "import sys\n"
        "from regraft.cli import app\n"
        "from regraft.core.errors import DataError\n"
        "for folder in ('one', 'empty', 'missing'):\n"
        "    try:\n"
        "        app(['train', folder, '--state', 'state'], standalone_mode=False)\n"
        "    except DataError as error:\n"
        "        print(type(error).__name__, *{'torch', 'zenml', 'mlflow'} & set(sys.modules))\n"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=100)
    assert done.stdout.splitlines() == ["DataError", "NoPhotos", "NoPhotos"], done.stderr
