//! Hostile checkpoints: what fuzzing found interesting (fuzz/corpus/weights), and random changes of good ones. Nothing may panic or
//! hang; what is read, or the error, does not matter.

use std::fs;
use std::io::Read;
use std::path::Path;
use std::time::{Duration, Instant};

use cytomask_weights::Checkpoint;

/// An input may take this long, on a busy machine and unoptimised.
const LONGEST: Duration = Duration::from_secs(20);

fn look_at(bytes: &[u8], name: &str) {
    let start = Instant::now();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("hostile.pt");
    fs::write(&path, bytes).unwrap();
    if let Ok(checkpoint) = Checkpoint::open(&path) {
        let _ = checkpoint.family();
        for view in checkpoint.model().iter().take(8) {
            let _ = view.to_f32();
        }
    }
    assert!(start.elapsed() < LONGEST, "{name} took {:?}", start.elapsed());
}

#[test]
fn the_corpus_is_harmless() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/weights");
    let mut count = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        look_at(&fs::read(&path).unwrap(), &path.display().to_string());
        count += 1;
    }
    // And what longer runs of libFuzzer found worth keeping.
    let found = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/found/weights.tar.gz");
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(fs::File::open(found).unwrap()));
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        look_at(&bytes, &entry.path().unwrap().display().to_string());
        count += 1;
    }
    assert!(count > 100);
}

#[test]
fn changed_checkpoints_are_harmless() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures");
    let mut state = 7_u64;
    // splitmix64
    let mut random = |limit: usize| {
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut value = state;
        value = (value ^ value >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        value = (value ^ value >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((value ^ value >> 31) % limit.max(1) as u64) as usize
    };
    for name in
        ["checkpoint_legacy.pt", "checkpoint_object.pt", "checkpoint_decoder.pt", "checkpoint_joint_protocol4.pt"]
    {
        let whole = fs::read(fixtures.join(name)).unwrap();
        for _ in 0..150 {
            let mut changed = whole.clone();
            for _ in 0..=random(5) {
                let at = random(changed.len());
                match random(4) {
                    0 => changed[at] ^= 1 << random(8),
                    1 => changed[at] = random(256) as u8,
                    2 => changed[at] = [0, 0xFF, 0x7F, 0x80][random(4)],
                    _ => changed.truncate(at + 1),
                }
            }
            look_at(&changed, name);
        }
    }
}
