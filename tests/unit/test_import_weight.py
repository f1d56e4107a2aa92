"""``import modelyard`` stays light."""

import subprocess
import sys
from pathlib import Path

HEAVY = (
    "alembic",
    "dbos",
    "duckdb",
    "fastapi",
    "httpx",
    "lightgbm",
    "numpy",
    "onnxruntime",
    "pandas",
    "polars",
    "pyarrow",
    "pydantic",
    "rich",
    "scipy",
    "sklearn",
    "sqlalchemy",
    "typer",
    "uvicorn",
    "xgboost",
)


def test_importing_the_package_loads_nothing_heavy():
    code = f"import modelyard, sys; print([name for name in {HEAVY!r} if name in sys.modules])"
    src = str(Path(__file__).parents[2] / "src")
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {src!r}); {code}"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "[]"


def test_every_public_name_loads():
    code = "import modelyard; print(all(getattr(modelyard, name) is not None for name in modelyard.__all__))"
    src = str(Path(__file__).parents[2] / "src")
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {src!r}); {code}"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "True"
