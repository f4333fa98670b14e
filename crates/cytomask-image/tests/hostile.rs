//! Hostile files: what fuzzing found interesting (fuzz/corpus), and random changes of good files. Nothing may panic or hang; what is
//! read, or the error, does not matter.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use cytomask_image::{PlaneIndex, Rect, Source};
use tempfile::TempDir;

/// An input may take this long, on a busy machine and unoptimised.
const LONGEST: Duration = Duration::from_secs(20);

/// What longer runs of libFuzzer found worth keeping, by name.
fn found(target: &str) -> Vec<(String, Vec<u8>)> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../../fuzz/found/{target}.tar.gz"));
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(fs::File::open(path).unwrap()));
    let mut inputs = Vec::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        inputs.push((entry.path().unwrap().display().to_string(), bytes));
    }
    assert!(inputs.len() > 100);
    inputs
}

fn corpus(target: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target);
    let mut found: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    found.sort();
    assert!(!found.is_empty());
    found
}

/// As fuzz/targets/source.rs.
fn look_at(bytes: Vec<u8>, name: &str) {
    let start = Instant::now();
    if let Ok(source) = Source::from_bytes("hostile", bytes) {
        let held = source.description();
        let last = PlaneIndex { time: held.times - 1, z: held.depth - 1, channel: held.channels - 1 };
        for (level, &[h, w]) in held.levels.iter().enumerate() {
            let near = Rect { y0: 0, x0: 0, y1: h.min(64), x1: w.min(64) };
            let far = Rect { y0: h - h.min(64), x0: w - w.min(64), y1: h, x1: w };
            let _ = source.read_level_rect(level, PlaneIndex::default(), near);
            let _ = source.read_level_rect(level, last, far);
        }
    }
    assert!(start.elapsed() < LONGEST, "{name} took {:?}", start.elapsed());
}

/// As fuzz/targets/zarr.rs: three parts become a folder.
fn look_at_zarr(bytes: &[u8], name: &str) {
    let start = Instant::now();
    let folder = TempDir::new().unwrap();
    let mut parts = Vec::new();
    let mut rest = bytes;
    while let Some(at) = rest.windows(3).position(|window| window == b"~~~") {
        parts.push(&rest[..at]);
        rest = &rest[at + 3..];
    }
    parts.push(rest);
    let part = |index: usize| parts.get(index).copied().unwrap_or_default();
    let array = folder.path().join("0");
    fs::create_dir_all(array.join("c")).unwrap();
    let v3 = part(1).windows(11).any(|window| window == b"zarr_format") && part(1).contains(&b'3');
    let (group_name, array_name) = if v3 { ("zarr.json", "zarr.json") } else { (".zattrs", ".zarray") };
    fs::write(folder.path().join(group_name), part(0)).unwrap();
    fs::write(array.join(array_name), part(1)).unwrap();
    for name in ["0.0", "c/0.0", "0.0.0.0.0", "c.0.0"] {
        fs::write(array.join(name), part(2)).unwrap();
    }
    if let Ok(source) = Source::open(folder.path()) {
        let [h, w] = source.description().size;
        let _ = source.read_rect(PlaneIndex::default(), Rect { y0: 0, x0: 0, y1: h.min(16), x1: w.min(16) });
    }
    assert!(start.elapsed() < LONGEST, "{name} took {:?}", start.elapsed());
}

/// A random number generator of few words (splitmix64).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut value = self.0;
        value = (value ^ value >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        value = (value ^ value >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((value ^ value >> 31) % limit.max(1) as u64) as usize
    }

    /// Some bytes changed, set to extremes, removed or doubled.
    fn change(&mut self, bytes: &mut Vec<u8>) {
        for _ in 0..=self.below(6) {
            let at = self.below(bytes.len());
            match self.below(6) {
                0 => bytes[at] ^= 1 << self.below(8),
                1 => bytes[at] = self.below(256) as u8,
                2 => {
                    let end = (at + (1 << self.below(4))).min(bytes.len());
                    let value = [0, 0xFF, 0x7F, 0x80][self.below(4)];
                    bytes[at.min(end)..end].fill(value);
                }
                3 => bytes.truncate(at + 1),
                4 => {
                    let end = (at + self.below(64)).min(bytes.len());
                    let copy = bytes[at..end].to_vec();
                    bytes.splice(at..at, copy);
                }
                _ => {
                    let end = (at + self.below(16)).min(bytes.len() - 1);
                    bytes.drain(at.min(end)..end);
                }
            }
        }
    }
}

#[test]
fn the_corpus_of_files_is_harmless() {
    for path in corpus("source") {
        look_at(fs::read(&path).unwrap(), &path.display().to_string());
    }
    for (name, bytes) in found("source") {
        look_at(bytes, &name);
    }
}

#[test]
fn the_corpus_of_zarrs_is_harmless() {
    for path in corpus("zarr") {
        look_at_zarr(&fs::read(&path).unwrap(), &path.display().to_string());
    }
    for (name, bytes) in found("zarr") {
        look_at_zarr(&bytes, &name);
    }
}

#[test]
fn changed_files_are_harmless() {
    let packed = fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/files.safetensors.gz")).unwrap();
    let mut bytes = Vec::new();
    flate2::read::GzDecoder::new(packed.as_slice()).read_to_end(&mut bytes).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let mut random = Random(7);
    for (name, tensor) in tensors.tensors() {
        if name.contains('/') || name.ends_with(".json") {
            continue;
        }
        for _ in 0..40 {
            let mut changed = tensor.data().to_vec();
            // Headers are where the harm is.
            if random.below(2) == 0 {
                let mut head = changed[..changed.len().min(400)].to_vec();
                random.change(&mut head);
                let end = changed.len().min(400);
                changed.splice(..end, head);
            } else {
                random.change(&mut changed);
            }
            look_at(changed, &name);
        }
    }
}

/// `CYTOMASK_FUZZ_SECONDS=600 cargo test --release -p cytomask-image --test hostile -- --ignored` changes good files at random until the
/// time is over; what panics is left in the folder for temporary files.
#[test]
#[ignore = "runs as long as it is told to"]
fn changed_files_are_harmless_for_long() {
    let seconds = std::env::var("CYTOMASK_FUZZ_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(60);
    let seed = std::env::var("CYTOMASK_FUZZ_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
    let end = Instant::now() + Duration::from_secs(seconds);
    let packed = fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/files.safetensors.gz")).unwrap();
    let mut bytes = Vec::new();
    flate2::read::GzDecoder::new(packed.as_slice()).read_to_end(&mut bytes).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let files: Vec<Vec<u8>> = tensors
        .tensors()
        .into_iter()
        .filter(|(name, _)| !name.contains('/') && !name.ends_with(".json"))
        .map(|(_, tensor)| tensor.data().to_vec())
        .collect();
    let zarrs: Vec<Vec<u8>> = corpus("zarr").iter().map(|path| fs::read(path).unwrap()).collect();
    let mut random = Random(seed);
    let (mut count, mut found) = (0_u64, 0_u64);
    while Instant::now() < end {
        // Files on disk take longer to try.
        let zarr = random.below(20) == 0;
        let list = if zarr { &zarrs } else { &files };
        let mut changed = list[random.below(list.len())].clone();
        let head = changed.len().min([100, 400, 2000][random.below(3)]);
        if random.below(4) > 0 {
            let mut part = changed[..head].to_vec();
            random.change(&mut part);
            changed.splice(..head, part);
        } else {
            // TIFF directories are often at the end.
            let start = changed.len() - head;
            let mut part = changed[start..].to_vec();
            random.change(&mut part);
            changed.splice(start.., part);
        }
        let kept = changed.clone();
        let harmless = std::panic::catch_unwind(|| match zarr {
            true => look_at_zarr(&changed, "changed zarr"),
            false => look_at(changed, "changed file"),
        });
        count += 1;
        if harmless.is_err() {
            found += 1;
            fs::write(std::env::temp_dir().join(format!("hostile-{seed}-{count}")), kept).unwrap();
        }
    }
    assert_eq!(found, 0, "{found} of {count} inputs panicked or hung");
    // The number of inputs is what the run is worth.
    let _ = fs::write(std::env::temp_dir().join(format!("hostile-{seed}-count")), count.to_string());
}
