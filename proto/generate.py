"""
Generate reconciler/node/_pb from these files: `proto/generate.py [DIRECTORY]`.

The mapping of the import path gives the generated modules their right
imports, so nothing needs rewriting afterwards.
"""

# ruff: noqa: INP001 - a script beside what it reads, not a package

import sys
from pathlib import Path

from grpc_tools import protoc

PROTO = Path(__file__).resolve().parent


def main() -> int:
    """Write the generated code below the given directory, else below this project's; return 0 when well."""
    target = sys.argv[1] if len(sys.argv) > 1 else str(PROTO.parent)
    options = [f"-Ireconciler/node/_pb={PROTO}", f"--python_out={target}", f"--pyi_out={target}"]
    names = [f"reconciler/node/_pb/{path.name}" for path in sorted(PROTO.glob("*.proto"))]
    return int(protoc.main(["protoc", *options, *names]))


if __name__ == "__main__":
    sys.exit(main())
