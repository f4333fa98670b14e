//! Any bytes as a checkpoint: torch's zip and legacy formats with their pickles, safetensors.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let path = std::env::temp_dir().join(format!("cytomask-fuzz-{}.pt", std::process::id()));
    if std::fs::write(&path, bytes).is_err() {
        return;
    }
    let Ok(checkpoint) = cytomask_weights::Checkpoint::open(&path) else { return };
    let _ = checkpoint.family();
    for view in checkpoint.model().iter().take(8) {
        // A tensor's size is bounded by the file, so this is too.
        let _ = view.to_f32();
    }
});
