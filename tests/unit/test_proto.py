import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_the_generated_code_is_fresh(tmp_path: Path):
    subprocess.run([sys.executable, ROOT / "proto" / "generate.py", tmp_path], check=True)

    assert _code(tmp_path) == _code(ROOT)


def _code(root: Path) -> dict[str, str]:
    folder = root / "reconciler" / "node" / "_pb"
    return {path.name: path.read_text(encoding="utf-8") for path in folder.iterdir() if path.is_file()}
