//! Any bytes as a published dataset's file: NPY, Zarr 2, HDF5, COCO and GeoJSON annotations, ImageJ regions, archives.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let folder = std::env::temp_dir().join(format!("cytomask-fuzz-{}", std::process::id()));
    if std::fs::create_dir_all(&folder).is_ok() {
        cytomask_datasets::fuzzing::read_any(bytes, &folder);
    }
    let _ = std::fs::remove_dir_all(&folder);
});
