"""Fills fuzz/corpus from the fixtures: files of every kind, OME-Zarr images as one file each, checkpoints. Needs numpy and safetensors."""

import gzip
import json
from pathlib import Path

from safetensors.numpy import load

here = Path(__file__).parent
fixtures = here.parent / "fixtures"
files = {name: data.tobytes() for name, data in load(gzip.decompress((fixtures / "files.safetensors.gz").read_bytes())).items()}
corpus = here / "corpus"
for kind in ("source", "zarr", "weights"):
    (corpus / kind).mkdir(parents=True, exist_ok=True)
for name, data in files.items():
    if "/" not in name and not name.endswith(".json") and len(data) <= 6000:
        (corpus / "source" / name).write_bytes(data)
for folder in sorted({name.split("/")[0] for name in files if "/" in name}):
    inside = {name: data for name, data in files.items() if name.startswith(folder + "/")}
    group = inside.get(f"{folder}/.zattrs") or inside.get(f"{folder}/zarr.json")
    array = inside.get(f"{folder}/0/.zarray") or inside.get(f"{folder}/0/zarr.json")
    if not array:
        continue
    # Slashes in keys would be folders.
    array = array.replace(b'"separator": "/"', b'"separator": "."').replace(b'"dimension_separator": "/"', b'"dimension_separator": "."')
    chunk = next((data for name, data in inside.items() if "/0/" in name and not name.endswith(("json", ".zarray", ".zattrs"))), b"")
    (corpus / "zarr" / folder).write_bytes(b"~~~".join([group, array, chunk]))
for path in fixtures.glob("checkpoint_*.pt"):
    if path.stat().st_size <= 9000:
        (corpus / "weights" / path.name).write_bytes(path.read_bytes())
print({kind.name: len(list(kind.iterdir())) for kind in corpus.iterdir()}, sum(f.stat().st_size for f in corpus.rglob("*") if f.is_file()), "bytes")
