//! An OME-Zarr folder: the input's three parts (between `~~~`) are the group's metadata, the array's, and every chunk.
#![no_main]

use std::fs;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let mut parts = Vec::new();
    let mut rest = bytes;
    while let Some(at) = rest.windows(3).position(|window| window == b"~~~") {
        parts.push(&rest[..at]);
        rest = &rest[at + 3..];
    }
    parts.push(rest);
    let part = |index: usize| parts.get(index).copied().unwrap_or_default();
    let root = std::env::temp_dir().join(format!("cytomask-fuzz-{}", std::process::id()));
    let array = root.join("0");
    let _ = fs::create_dir_all(array.join("c"));
    // Version 3 where the metadata look like it.
    let v3 = part(1).windows(11).any(|window| window == b"zarr_format") && part(1).contains(&b'3');
    let (group_name, array_name) = if v3 { ("zarr.json", "zarr.json") } else { (".zattrs", ".zarray") };
    for name in ["zarr.json", ".zattrs", ".zarray"] {
        let _ = fs::remove_file(root.join(name));
        let _ = fs::remove_file(array.join(name));
    }
    let _ = fs::write(root.join(group_name), part(0));
    let _ = fs::write(array.join(array_name), part(1));
    for name in ["0.0", "c/0.0", "0.0.0.0.0", "c.0.0"] {
        let _ = fs::write(array.join(name), part(2));
    }
    let Ok(source) = cytomask_image::Source::open(&root) else { return };
    let [h, w] = source.description().size;
    let rect = cytomask_image::Rect { y0: 0, x0: 0, y1: h.min(16), x1: w.min(16) };
    let _ = source.read_rect(Default::default(), rect);
});
