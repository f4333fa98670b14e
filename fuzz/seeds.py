"""Fills fuzz/corpus from the fixtures: files of every kind, OME-Zarr images as one file each, checkpoints. Needs numpy and safetensors."""

import gzip
import json
from pathlib import Path

from safetensors.numpy import load

here = Path(__file__).parent
fixtures = here.parent / "fixtures"
files = {name: data.tobytes() for name, data in load(gzip.decompress((fixtures / "files.safetensors.gz").read_bytes())).items()}
corpus = here / "corpus"
for kind in ("source", "zarr", "weights", "datasets"):
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
ring = [[0, 0], [40.5, 0], [40.5, 30], [0, 30], [0, 0]]
runs = "_?:g2000Th8n0nVG00000000000000000000000000000000000000000000000000000000000^N"
objects = [
    {"id": 1, "image_id": 2, "area": 7.5, "iscrowd": 0, "segmentation": [[0, 0, 4, 0, 4, 4]]},
    {"id": 2, "image_id": 2, "iscrowd": 1, "segmentation": {"counts": [5, 10, 12692], "size": [97, 131]}},
    {"id": 3, "image_id": 2, "segmentation": {"counts": runs, "size": [97, 131]}},
]
features = [
    {"geometry": {"type": "Polygon", "coordinates": [ring]}, "properties": {"classification": {"name": "tumor"}}},
    {"geometry": {"type": "MultiPolygon", "coordinates": [[ring], [ring]]}, "properties": {"classification": "{}"}},
]
zarray = {"zarr_format": 2, "shape": [2, 3], "chunks": [2, 3], "dtype": "<u2", "order": "C", "compressor": None, "filters": None, "fill_value": 0}
texts = {
    "coco.json": json.dumps({"images": [{"id": 2, "file_name": "a.tif", "height": 97, "width": 131}], "annotations": objects}),
    "geo.json": json.dumps({"features": features}),
    "regions.xml": '<A><Region Id="1"><Vertices><Vertex X="1.5" Y="2"/><Vertex X="3" Y="4"/></Vertices></Region></A>',
    "array": json.dumps(zarray) + "~~~" + "0" * 12,
}
for name, text in texts.items():
    (corpus / "datasets" / name).write_text(text)
for name in ("image.h5", "volume.h5", "images.zip", "tissuenet.npz"):
    (corpus / "datasets" / name).write_bytes((fixtures / "datasets" / name).read_bytes())
(corpus / "datasets" / "array.npy").write_bytes(next(data for name, data in files.items() if name.endswith(".npy")))
print({kind.name: len(list(kind.iterdir())) for kind in corpus.iterdir()}, sum(f.stat().st_size for f in corpus.rglob("*") if f.is_file()), "bytes")
