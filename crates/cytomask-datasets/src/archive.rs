//! Folders and archives as one list of files, with nothing trusted.
//!
//! An archive's names only ever select members: what is read is unpacked under a number of ours into a scratch folder and
//! removed again. A name that would lead out of the archive, a link, and a member that unpacks to more than it declares or than
//! the limits allow are errors even where nobody asked for that member.

mod unpack;

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering as Atomic};

use zip::ZipArchive;

use crate::pattern::{Match, match_end, natural};
use crate::{Error, ErrorKind, Result};

/// How much an archive may hold.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Files in an archive or folder.
    pub entries: usize,
    /// Bytes of one unpacked member.
    pub member_bytes: u64,
    /// Bytes of all members of an archive together.
    pub total_bytes: u64,
    /// How many times larger than packed a member, and all of them together, may be, once they exceed `ratio_from_bytes`.
    pub ratio: u64,
    /// Below it the ratio is not looked at: a small empty image packs a thousandfold.
    pub ratio_from_bytes: u64,
}

impl Default for Limits {
    /// Two million files; 32 GiB a member, 256 GiB an archive; 400-fold from 256 MiB on (PanNuke's masks, mostly zeros, pack
    /// about 150-fold).
    fn default() -> Self {
        Self {
            entries: 2_000_000,
            member_bytes: 32 << 30,
            total_bytes: 256 << 30,
            ratio: 400,
            ratio_from_bytes: 256 << 20,
        }
    }
}

enum Place {
    Disk(PathBuf),
    Zip { mount: usize, index: usize },
}

/// A file somewhere below what the user gave.
pub(crate) struct Entry {
    /// `/` between folders; relative to the archive or folder.
    pub(crate) path: String,
    /// The archive, folder or file the user gave.
    pub(crate) root: String,
    place: Place,
}

impl Entry {
    /// Names this file in an error.
    pub(crate) fn blame(&self, error: Error) -> Error {
        error.in_archive(&self.root).at_member(&self.path)
    }
}

/// A file found by a pattern.
pub(crate) struct Found<'a> {
    pub(crate) entry: &'a Entry,
    /// The part of the path that the pattern covers.
    pub(crate) text: String,
    /// What the pattern's stars stand for, joined.
    pub(crate) key: String,
}

/// A file on disk; a scratch copy goes when this does.
pub(crate) struct Fetched {
    pub(crate) path: PathBuf,
    temporary: bool,
}

impl Drop for Fetched {
    fn drop(&mut self) {
        if self.temporary {
            // The scratch folder goes as a whole later.
            drop(std::fs::remove_file(&self.path));
        }
    }
}

/// Everything the user gave.
pub(crate) struct Files {
    entries: Vec<Entry>,
    mounts: Vec<Mutex<ZipArchive<File>>>,
    scratch: tempfile::TempDir,
    counter: AtomicU64,
    limits: Limits,
}

impl Files {
    /// Lists folders, archives (zip, tar, tar.gz) and single files. `scratch` is where unpacked files lie for a while.
    pub(crate) fn open(inputs: &[PathBuf], scratch: &Path, limits: Limits) -> Result<Self> {
        let scratch = tempfile::Builder::new()
            .prefix(".unpacked-")
            .tempdir_in(scratch)
            .map_err(|source| Error::io(scratch, "cannot create a scratch folder in it", source))?;
        let mut files = Self { entries: Vec::new(), mounts: Vec::new(), scratch, counter: AtomicU64::new(0), limits };
        for input in inputs {
            let root = input.display().to_string();
            let at = |error: Error| error.in_archive(&root);
            if input.is_dir() {
                files.add_folder(input, &root, "", 0).map_err(at)?;
            } else {
                let name = input.file_name().unwrap_or_default().to_string_lossy().into_owned();
                match kind_of(input, &name)? {
                    Kind::Zip => files.add_zip(input, &root, "").map_err(at)?,
                    Kind::Tar { packed } => files.add_tar(input, &root, packed).map_err(at)?,
                    Kind::Plain => {
                        files.entries.push(Entry { path: name, root, place: Place::Disk(input.clone()) });
                    }
                }
            }
        }
        Ok(files)
    }

    fn count_entries(&self, more: usize) -> Result<()> {
        let count = self.entries.len().saturating_add(more);
        if count > self.limits.entries {
            return Err(Error::expected(
                ErrorKind::Unsafe,
                "number of files",
                format!("at most {}", self.limits.entries),
                count,
            ));
        }
        Ok(())
    }

    fn add_folder(&mut self, folder: &Path, root: &str, prefix: &str, depth: u32) -> Result<()> {
        if depth > 16 {
            return Err(Error::new(ErrorKind::Value, format!("{prefix}: folders are nested more than 16 deep")));
        }
        let failed = |source| Error::io(folder, "cannot list", source);
        for entry in std::fs::read_dir(folder).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if is_litter(&name) {
                continue;
            }
            let path = if prefix.is_empty() { name } else { format!("{prefix}/{name}") };
            if entry.path().is_dir() {
                self.add_folder(&entry.path(), root, &path, depth + 1)?;
            } else {
                self.count_entries(1)?;
                self.entries.push(Entry { path, root: root.to_owned(), place: Place::Disk(entry.path()) });
            }
        }
        Ok(())
    }

    /// All files whose path ends as one of the patterns says, in natural or plain order.
    pub(crate) fn find(&self, patterns: &[impl AsRef<str>], plain_order: bool) -> Result<Vec<Found<'_>>> {
        let mut found: Vec<Found<'_>> = self
            .entries
            .iter()
            .filter_map(|entry| {
                let Match { text, stars } = patterns.iter().find_map(|one| match_end(one.as_ref(), &entry.path))?;
                Some(Found { entry, text, key: stars.join("/") })
            })
            .collect();
        found.sort_by(|a, b| {
            let order = if plain_order { a.text.cmp(&b.text) } else { natural(&a.text, &b.text) };
            order.then_with(|| a.text.cmp(&b.text))
        });
        for pair in found.windows(2) {
            if pair[0].text == pair[1].text {
                let message = format!(
                    "{}: this file is there twice ({} and {}: {}); give one folder or archive of each kind",
                    pair[0].text, pair[0].entry.path, pair[1].entry.root, pair[1].entry.path
                );
                return Err(Error::new(ErrorKind::Value, message).in_archive(&pair[0].entry.root));
            }
        }
        Ok(found)
    }

    /// As [`Files::find`], and an error that lists the patterns when nothing is found.
    pub(crate) fn need(&self, patterns: &[impl AsRef<str>], plain_order: bool) -> Result<Vec<Found<'_>>> {
        let found = self.find(patterns, plain_order)?;
        if found.is_empty() {
            let names: Vec<&str> = patterns.iter().map(AsRef::as_ref).collect();
            let mut seen: Vec<&str> = self.entries.iter().map(|entry| entry.path.as_str()).take(3).collect();
            if self.entries.len() > seen.len() {
                seen.push("…");
            }
            let message = format!(
                "no files {}; found {} files, such as {}",
                names.join(" or "),
                self.entries.len(),
                seen.join(", ")
            );
            return Err(Error::new(ErrorKind::NotFound, message).in_archive(self.roots()));
        }
        Ok(found)
    }

    /// What the user gave, for messages.
    pub(crate) fn roots(&self) -> String {
        let mut roots: Vec<&str> = self.entries.iter().map(|entry| entry.root.as_str()).collect();
        roots.dedup();
        if roots.is_empty() { "what was given".to_owned() } else { roots.join(", ") }
    }

    /// A file's path on disk, unpacked if need be.
    pub(crate) fn fetch(&self, entry: &Entry) -> Result<Fetched> {
        match &entry.place {
            Place::Disk(path) => Ok(Fetched { path: path.clone(), temporary: false }),
            Place::Zip { mount, index } => {
                let path = self.scratch_path();
                let fetched = Fetched { path, temporary: true };
                self.unpack_zip_member(*mount, *index, &fetched.path).map_err(|error| entry.blame(error))?;
                Ok(fetched)
            }
        }
    }

    /// Fetches a file and hands its path to `read`; errors name the file.
    pub(crate) fn with<T>(&self, entry: &Entry, read: impl FnOnce(&Path) -> Result<T>) -> Result<T> {
        let fetched = self.fetch(entry)?;
        read(&fetched.path).map_err(|error| entry.blame(error))
    }

    /// A text file of at most `limit` bytes.
    pub(crate) fn text(&self, entry: &Entry, limit: u64) -> Result<Vec<u8>> {
        self.with(entry, |path| {
            let failed = |source| Error::new(ErrorKind::Io, "cannot read").with_source(source);
            let file = File::open(path).map_err(failed)?;
            let length = file.metadata().map_err(failed)?.len();
            if length > limit {
                return Err(Error::expected(ErrorKind::Value, "size", format!("at most {limit} bytes"), length));
            }
            let mut bytes = Vec::with_capacity(length as usize);
            file.take(limit).read_to_end(&mut bytes).map_err(failed)?;
            Ok(bytes)
        })
    }

    /// Opens the zip archives inside what was given that a pattern names, as if their files lay beside them.
    pub(crate) fn open_nested(&mut self, patterns: &[String]) -> Result<()> {
        let nested: Vec<usize> = (0..self.entries.len())
            .filter(|&at| patterns.iter().any(|pattern| match_end(pattern, &self.entries[at].path).is_some()))
            .collect();
        for at in nested {
            let entry = &self.entries[at];
            let (root, prefix) = (format!("{}: {}", entry.root, entry.path), crate::pattern::parent(&entry.path));
            let prefix = prefix.to_owned();
            let mut fetched = self.fetch(entry)?;
            // It stays open; the scratch folder takes it away in the end.
            fetched.temporary = false;
            let path = fetched.path.clone();
            self.add_zip(&path, &root, &prefix).map_err(|error| error.in_archive(&root))?;
        }
        Ok(())
    }

    /// The files of a zip archive inside what was given (NPZ), by themselves.
    pub(crate) fn open_inside(&self, entry: &Entry) -> Result<Self> {
        let fetched = self.fetch(entry)?;
        let scratch = tempfile::Builder::new()
            .prefix("inside-")
            .tempdir_in(self.scratch.path())
            .map_err(|source| Error::io(self.scratch.path(), "cannot create a scratch folder in it", source))?;
        let (counter, limits) = (AtomicU64::new(0), self.limits);
        let mut files = Self { entries: Vec::new(), mounts: Vec::new(), scratch, counter, limits };
        let root = format!("{}: {}", entry.root, entry.path);
        // The open archive keeps its content even after the scratch copy's name is gone (and on Windows the copy stays).
        files.add_zip(&fetched.path, &root, "").map_err(|error| error.in_archive(&root))?;
        Ok(files)
    }

    fn scratch_path(&self) -> PathBuf {
        self.scratch.path().join(self.counter.fetch_add(1, Atomic::Relaxed).to_string())
    }
}

enum Kind {
    Zip,
    Tar { packed: bool },
    Plain,
}

/// By content; `.npz` files are zip archives that stay whole.
fn kind_of(path: &Path, name: &str) -> Result<Kind> {
    let failed = |source| Error::io(path, "cannot read", source);
    let mut head = [0_u8; 512];
    let mut file = File::open(path).map_err(failed)?;
    let mut length = 0;
    while length < head.len() {
        match file.read(&mut head[length..]).map_err(failed)? {
            0 => break,
            count => length += count,
        }
    }
    let lower = name.to_lowercase();
    Ok(match &head[..length] {
        [b'P', b'K', 3 | 5, 4 | 6, ..] if !lower.ends_with(".npz") => Kind::Zip,
        _ if lower.ends_with(".zip") => Kind::Zip,
        [0x1F, 0x8B, ..] => Kind::Tar { packed: true },
        head if head.len() == 512 && head[257..].starts_with(b"ustar") => Kind::Tar { packed: false },
        _ => Kind::Plain,
    })
}

/// Files that the operating systems of archive makers leave behind.
fn is_litter(name: &str) -> bool {
    name == "__MACOSX" || name == ".DS_Store" || name == "Thumbs.db" || name.starts_with("._")
}
