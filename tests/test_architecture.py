"""What no one may break: imports run one way, the public names, docstrings, a start without torch."""

import ast
import importlib
import inspect
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import windtunnel as wt

ROOT = Path(__file__).parent.parent
SOURCES = sorted((ROOT / "src" / "windtunnel").rglob("*.py"))


def test_imports_run_one_way() -> None:
    command = [str(Path(sys.executable).parent / "lint-imports"), "--no-cache"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    "code",
    [
        "import windtunnel",
        "import windtunnel; windtunnel.recipes.names()",
        "import windtunnel; windtunnel.recipes.entry('llama')",
        "import windtunnel.cli",
    ],
)
def test_torch_is_not_imported_before_it_is_needed(code: str) -> None:
    heavy = "('torch', 'transformers', 'numpy', 'scipy', 'pyarrow', 'jinja2', 'plotly')"
    check = f"{code}\nimport sys\nprint([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_what_is_public_is_what_is_visible() -> None:
    code = "import windtunnel as wt; print(sorted(name for name in dir(wt) if not name.startswith('_')))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    visible = set(ast.literal_eval(done.stdout))
    submodules = {module.name for module in pkgutil.iter_modules(wt.__path__)}
    helpers = {"importlib", "TYPE_CHECKING", "Any"}
    assert visible - submodules - helpers <= set(wt.__all__)
    for name in wt.__all__:
        assert getattr(wt, name) is not None


@pytest.mark.parametrize(
    "first",
    [
        "pass",
        "wt.recipes.get('llama')",
        "wt.recipes.training('llama')",
        "from windtunnel.recipes.llama import SIZES",
        "import windtunnel.recipes.llama",
        "from windtunnel.recipes import llama; assert callable(llama)",
    ],
)
def test_a_recipe_is_an_attribute_whoever_imported_its_file(first: str) -> None:
    code = f"import windtunnel as wt; {first}; wt.recipes.llama(layers=1, width=64); assert 'llama' in dir(wt.recipes)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_recipe_is_an_attribute() -> None:
    for name in wt.recipes.names():
        assert getattr(wt.recipes, name) is wt.recipes.get(name)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT / "src")))
def test_everything_public_says_what_it_is(path: Path) -> None:
    tree = ast.parse(path.read_text())
    assert ast.get_docstring(tree) or not tree.body, "the module"
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not _explained(node):
            pytest.fail(f"{path.name}:{node.lineno}: {node.name} has no docstring")


def _explained(node: ast.FunctionDef | ast.ClassDef) -> bool:
    """A layer is explained by the spec that it belongs to."""
    return node.name.startswith("_") or node.name.endswith("Layer") or ast.get_docstring(node) is not None


@pytest.mark.parametrize("room", ["kernels", "mixers", "mlps", "positions", "ledger", "report"])
def test_rooms_export_what_they_name(room: str) -> None:
    module = importlib.import_module(f"windtunnel.{room}")
    for name in module.__all__:
        assert hasattr(module, name)
    own = {
        name
        for name, value in vars(module).items()
        if not name.startswith("_")
        and not inspect.ismodule(value)
        and getattr(value, "__module__", "").startswith("windtunnel.")
    }
    assert own <= set(module.__all__)
