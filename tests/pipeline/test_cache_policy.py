"""Which source files decide whether a step's earlier result may be used again."""

import ast
import re
import shutil
from pathlib import Path

import pytest

pytestmark = pytest.mark.pipeline

ROOT = Path(__file__).parents[2]
CORE = ROOT / "regraft"
POLICY = re.compile(r"cache_policy=(\w+)")
CORE_FUNCTION = re.compile(r"from (regraft[\w.]+) import \(?(?:\w+, )*\w+ as core_")


def file_of(dotted):
    """The file of a module or package, None where the name is a function or the like."""
    path = ROOT.joinpath(*dotted.split("."))
    files = (path.with_suffix(".py"), path / "__init__.py")
    return next((file for file in files if file.is_file()), None)


def lazily_imported(call, path):
    """The modules that a package imports when one of its names is used."""
    package = ".".join(path.parent.relative_to(ROOT).parts)
    return {f"{package}.{module}" for module in ast.literal_eval(call.args[1])}


def imported_files(path):
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "lazy_exports":
            names |= lazily_imported(node, path)
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    parts = [name.split(".") for name in names if name.startswith("regraft.")]
    prefixes = {".".join(each[:end]) for each in parts for end in range(2, len(each) + 1)}
    return {file for file in map(file_of, prefixes) if file}


def closure_of(path):
    """All files of the core that a file imports, or that these import, itself included."""
    seen, waiting = set(), [path]
    while waiting:
        file = waiting.pop()
        if file not in seen:
            seen.add(file)
            waiting += imported_files(file)
    return seen


def cached_steps():
    for path in sorted((ROOT / "steps").glob("*.py")):
        text = path.read_text(encoding="utf-8")
        policy = POLICY.search(text)
        if policy:
            yield path.stem, policy[1], file_of(CORE_FUNCTION.search(text)[1])


def test_a_lazy_package_is_followed_to_every_module_that_it_names():
    package = CORE / "model" / "embed"
    imported = imported_files(package / "__init__.py")
    assert {package / f"{name}.py" for name in ("compute", "embedding", "rows")} <= imported


def test_a_bundle_holds_the_code_that_serving_imports():
    """And no other, except the freeze plan, which is in the same package as the classifier."""
    from regraft.registry.package import SERVED_PATHS

    served = CORE / "registry" / "served.py"
    places = [CORE / path for path in SERVED_PATHS]
    held = {
        file for place in places for file in ({place} if place.is_file() else place.rglob("*.py"))
    }
    assert closure_of(served) - held == {served}
    assert held - closure_of(served) == {CORE / "__init__.py", CORE / "model" / "freeze.py"}


@pytest.fixture
def caching(state):
    """Imported where ZenML has a store."""
    from regraft.orchestration import caching

    return caching


def test_a_policy_hashes_every_file_that_its_step_s_core_function_imports(caching):
    n_steps = 0
    for step, policy, core in cached_steps():
        paths = getattr(caching, policy.removeprefix("FOLLOW_"))
        places = [CORE / path for path in paths]
        for file in closure_of(core):
            is_docstring = file.name == "__init__.py" and "import" not in file.read_text()
            in_places = any(file == place or place in file.parents for place in places)
            assert in_places or is_docstring, (step, policy, file)
        n_steps += 1
    assert n_steps == 10


def test_the_hash_sees_each_source_file_of_its_places_and_no_other(caching, tmp_path, monkeypatch):
    core = shutil.copytree(CORE, tmp_path / "regraft")
    monkeypatch.setattr(caching, "CORE", core)

    def hashes():
        caching.code_hash.cache_clear()
        return [caching.code_hash(places) for places in (caching.DATA, caching.EVALUATION)]

    before = hashes()
    for name, changed in (
        ("data/split/copies.py", [True, True]),
        ("evaluation/report/templates/page.html", [False, True]),
        ("operations/status/templates/model.html", [False, False]),
        ("cli/train.py", [False, False]),
    ):
        (core / name).write_text((core / name).read_text(encoding="utf-8") + "\n")
        after = hashes()
        assert [old != new for old, new in zip(before, after, strict=True)] == changed, name
        before = after
    (core / "data" / "__pycache__").mkdir(exist_ok=True)
    (core / "data" / "__pycache__" / "new.cpython-311.pyc").write_bytes(b"")
    assert hashes() == before
    caching.code_hash.cache_clear()
