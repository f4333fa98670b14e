//! Any bytes as an image file: TIFF (OME-XML, ImageJ and tifffile descriptions), NPY, PNG, JPEG, BMP.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Ok(source) = cytomask_image::Source::from_bytes("fuzz", bytes.to_vec()) else { return };
    let held = source.description();
    let last = cytomask_image::PlaneIndex { time: held.times - 1, z: held.depth - 1, channel: held.channels - 1 };
    for (level, &[h, w]) in held.levels.iter().enumerate() {
        // Two corners: reading all of a large plane is the caller's choice.
        let near = cytomask_image::Rect { y0: 0, x0: 0, y1: h.min(64), x1: w.min(64) };
        let far = cytomask_image::Rect { y0: h - h.min(64), x0: w - w.min(64), y1: h, x1: w };
        let _ = source.read_level_rect(level, Default::default(), near);
        let _ = source.read_level_rect(level, last, far);
    }
});
