//! Hashes of files: SHA-256, and xxh128 as µSAM's registry uses it.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use sha2::{Digest, Sha256};
use xxhash_rust::xxh3::Xxh3;

use crate::{Error, Result};

/// A published hash of a file, lower-case hexadecimal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Hash {
    /// xxh3, 128 bits (`xxh128sum`).
    Xxh128(&'static str),
    /// SHA-256.
    Sha256(&'static str),
    /// The first digits of the SHA-256, where a file carries no more in its name.
    Sha256Prefix(&'static str),
}

impl std::fmt::Display for Hash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Hash::Xxh128(hex) => write!(f, "xxh128:{hex}"),
            Hash::Sha256(hex) => write!(f, "sha256:{hex}"),
            Hash::Sha256Prefix(hex) => write!(f, "sha256:{hex}…"),
        }
    }
}

/// Both hashes of a file, found by reading it once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileHashes {
    /// xxh3, 128 bits, as hexadecimal.
    pub xxh128: String,
    /// SHA-256 as hexadecimal.
    pub sha256: String,
}

impl FileHashes {
    /// Reads a file.
    ///
    /// # Errors
    /// `Io`.
    pub fn of(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let mut file = File::open(path).map_err(|source| Error::io("cannot open", path, source))?;
        let (mut xxh, mut sha) = (Xxh3::new(), Sha256::new());
        let mut buffer = vec![0; 1 << 18];
        loop {
            match file.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => {
                    xxh.update(&buffer[..count]);
                    sha.update(&buffer[..count]);
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(source) => return Err(Error::io("cannot read", path, source)),
            }
        }
        Ok(Self { xxh128: format!("{:032x}", xxh.digest128()), sha256: hex(&sha.finalize()) })
    }

    /// Whether this is the file that was published with `hash`.
    pub fn matches(&self, hash: &Hash) -> bool {
        match hash {
            Hash::Xxh128(hex) => self.xxh128 == *hex,
            Hash::Sha256(hex) => self.sha256 == *hex,
            Hash::Sha256Prefix(hex) => self.sha256.starts_with(hex),
        }
    }

    /// The found counterpart of a published hash, for messages.
    pub(crate) fn like(&self, hash: &Hash) -> String {
        match hash {
            Hash::Xxh128(_) => format!("xxh128:{}", self.xxh128),
            Hash::Sha256(_) | Hash::Sha256Prefix(_) => format!("sha256:{}", self.sha256),
        }
    }
}

/// SHA-256 of a file, as hexadecimal.
///
/// # Errors
/// `Io`.
pub fn sha256_file(path: impl AsRef<Path>) -> Result<String> {
    FileHashes::of(path).map(|hashes| hashes.sha256)
}

/// The SHA-256 of a checkpoint's bytes, worked out once for all who share it: when it is asked for, or by a thread of its own from
/// [`ContentHash::begin`] on, while the file is opened and its tensors are read.
#[derive(Clone, Debug)]
pub struct ContentHash(Arc<Mutex<State>>);

#[derive(Debug)]
enum State {
    File(PathBuf),
    Static(&'static [u8]),
    UnderWay(PathBuf, JoinHandle<Result<String>>),
    Known(String),
}

impl ContentHash {
    pub(crate) fn of_file(path: &Path) -> Self {
        Self(Arc::new(Mutex::new(State::File(path.to_path_buf()))))
    }

    pub(crate) fn of_bytes(bytes: &'static [u8]) -> Self {
        Self(Arc::new(Mutex::new(State::Static(bytes))))
    }

    /// Begins to read the file, if nobody has.
    pub fn begin(&self) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let State::File(path) = &*state {
            let (path, read) = (path.clone(), path.clone());
            // Without a thread it is read when it is asked for.
            if let Ok(thread) = std::thread::Builder::new().spawn(move || sha256_file(read)) {
                *state = State::UnderWay(path, thread);
            }
        }
    }

    /// The hash, as lower-case hexadecimal.
    ///
    /// # Errors
    /// `Io`; asked again, the file is read again.
    pub fn sha256(&self) -> Result<String> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let found = match std::mem::replace(&mut *state, State::Static(&[])) {
            State::Known(hash) => hash,
            State::Static(bytes) => sha256_bytes(bytes),
            State::File(path) => {
                *state = State::File(path.clone());
                sha256_file(path)?
            }
            State::UnderWay(path, thread) => {
                *state = State::File(path.clone());
                // A thread that panicked leaves no hash: the file is read here.
                thread.join().unwrap_or_else(|_| sha256_file(path))?
            }
        };
        *state = State::Known(found.clone());
        Ok(found)
    }
}

/// SHA-256 of bytes in memory, as hexadecimal.
pub fn sha256_bytes(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_hashes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("empty");
        std::fs::write(&path, b"").unwrap();
        let hashes = FileHashes::of(&path).unwrap();
        assert_eq!(hashes.sha256, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
        assert_eq!(hashes.xxh128, "99aa06d3014798d86001c324468d497f");
        assert!(hashes.matches(&Hash::Sha256Prefix("e3b0c4")));
        assert!(!hashes.matches(&Hash::Sha256Prefix("e3b0c5")));
        assert_eq!(sha256_bytes(b""), sha256_file(&path).unwrap());
    }

    #[test]
    fn a_hash_is_the_same_whoever_works_it_out() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("weights");
        std::fs::write(&path, b"abc").unwrap();
        let expected = sha256_bytes(b"abc");
        let asked = ContentHash::of_file(&path);
        assert_eq!(asked.sha256().unwrap(), expected);
        let ahead = ContentHash::of_file(&path);
        ahead.begin();
        let shared = ahead.clone();
        ahead.begin();
        assert_eq!(shared.sha256().unwrap(), expected);
        // Once known it is not read again.
        std::fs::remove_file(&path).unwrap();
        assert_eq!((ahead.sha256().unwrap(), asked.sha256().unwrap()), (expected.clone(), expected.clone()));
        assert_eq!(ContentHash::of_bytes(b"abc").sha256().unwrap(), expected);

        let absent = ContentHash::of_file(&path);
        absent.begin();
        assert!(absent.sha256().unwrap_err().to_string().contains("weights"));
        std::fs::write(&path, b"abc").unwrap();
        assert_eq!(absent.sha256().unwrap(), expected, "an error is not kept");
    }
}
