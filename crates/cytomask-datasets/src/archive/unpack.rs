//! Zip and tar members: names checked, sizes checked before and while unpacking.

use std::fs::File;
use std::io::{BufReader, BufWriter, ErrorKind as IoKind, Read, Write};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use flate2::read::MultiGzDecoder;
use zip::ZipArchive;
use zip::result::ZipError;

use super::{Entry, Files, Place, is_litter};
use crate::{Error, ErrorKind, Result};

impl Files {
    pub(super) fn add_zip(&mut self, path: &Path, root: &str, prefix: &str) -> Result<()> {
        let io = |source| Error::io(path, "cannot open", source);
        let file = File::open(path).map_err(io)?;
        let packed = file.metadata().map_err(io)?.len();
        let mut archive = ZipArchive::new(file).map_err(damaged)?;
        self.count_entries(archive.len())?;
        let mount = self.mounts.len();
        let mut total = 0_u64;
        for index in 0..archive.len() {
            let member = archive.by_index_raw(index).map_err(damaged)?;
            // Many archivers write UTF-8 without saying so.
            let name = match std::str::from_utf8(member.name_raw()) {
                Ok(name) => name.to_owned(),
                Err(_) => member.name().map_err(damaged)?.into_owned(),
            };
            let at = |error: Error| error.at_member(&name);
            let link = member.unix_mode().is_some_and(|mode| mode & 0o170_000 == 0o120_000);
            let clean = clean_name(&name).map_err(at)?;
            if link {
                return Err(at(Error::expected(ErrorKind::Unsafe, "member", "a file", "a symbolic link")));
            }
            if member.is_dir() {
                continue;
            }
            total = total.saturating_add(member.size());
            self.check_size(member.size(), member.compressed_size()).map_err(at)?;
            if clean.split('/').any(is_litter) {
                continue;
            }
            if member.encrypted() {
                return Err(at(Error::new(ErrorKind::Unsupported, "the member is encrypted")));
            }
            let path = if prefix.is_empty() { clean } else { format!("{prefix}/{clean}") };
            self.entries.push(Entry { path, root: root.to_owned(), place: Place::Zip { mount, index } });
        }
        self.check_total(total, packed)?;
        self.mounts.push(Mutex::new(archive));
        Ok(())
    }

    fn check_size(&self, size: u64, packed: u64) -> Result<()> {
        let limits = &self.limits;
        if size > limits.member_bytes {
            let expected = format!("at most {} bytes", limits.member_bytes);
            return Err(Error::expected(ErrorKind::Unsafe, "unpacked size", expected, size));
        }
        self.check_ratio(size, packed)
    }

    fn check_total(&self, total: u64, packed: u64) -> Result<()> {
        let limits = &self.limits;
        if total > limits.total_bytes {
            let expected = format!("at most {} bytes", limits.total_bytes);
            return Err(Error::expected(ErrorKind::Unsafe, "unpacked size of all members", expected, total));
        }
        self.check_ratio(total, packed)
    }

    fn check_ratio(&self, size: u64, packed: u64) -> Result<()> {
        let ratio = self.limits.ratio;
        if size > self.limits.ratio_from_bytes && size / packed.max(1) > ratio {
            let found = format!("{packed} bytes that unpack to {size}");
            return Err(Error::expected(ErrorKind::Unsafe, "compression", format!("at most {ratio}-fold"), found));
        }
        Ok(())
    }

    pub(super) fn unpack_zip_member(&self, mount: usize, index: usize, to: &Path) -> Result<()> {
        let mut archive = self.mounts[mount].lock().unwrap_or_else(PoisonError::into_inner);
        let member = archive.by_index(index).map_err(damaged)?;
        let declared = member.size();
        write_limited(member, to, declared)
    }

    /// A tar archive has no list of its members, so all of them are unpacked at once.
    pub(super) fn add_tar(&mut self, path: &Path, root: &str, packed: bool) -> Result<()> {
        let io = |source| Error::io(path, "cannot open", source);
        let file = File::open(path).map_err(io)?;
        let packed_bytes = file.metadata().map_err(io)?.len();
        let stream: Box<dyn Read> =
            if packed { Box::new(MultiGzDecoder::new(BufReader::new(file))) } else { Box::new(BufReader::new(file)) };
        // Skipped members are unpacked too, so the bound is on the stream, not only on what is kept.
        let ratio_bound = packed_bytes.saturating_mul(self.limits.ratio).max(self.limits.ratio_from_bytes);
        let bound = self.limits.total_bytes.min(ratio_bound);
        let mut archive = tar::Archive::new(Bounded { stream, left: bound });
        let cut = |source: std::io::Error| stream_error("tar", source);
        for member in archive.entries().map_err(cut)? {
            let member = member.map_err(cut)?;
            let name = String::from_utf8_lossy(&member.path_bytes()).into_owned();
            let at = |error: Error| error.at_member(&name);
            let clean = clean_name(&name).map_err(at)?;
            let kind = member.header().entry_type();
            if kind.is_dir() || kind.is_pax_global_extensions() {
                continue;
            }
            if !kind.is_file() {
                return Err(at(Error::expected(ErrorKind::Unsafe, "member", "a file", format!("{kind:?}"))));
            }
            let size = member.size();
            self.check_size(size, size).map_err(at)?;
            if clean.split('/').any(is_litter) {
                continue;
            }
            self.count_entries(1)?;
            let to = self.scratch_path();
            write_limited(member, &to, size).map_err(at)?;
            self.entries.push(Entry { path: clean, root: root.to_owned(), place: Place::Disk(to) });
        }
        Ok(())
    }
}

/// Ends with an error, not with the end of the file, when too much comes.
struct Bounded<R> {
    stream: R,
    left: u64,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.stream.read(buffer)?;
        self.left = self.left.checked_sub(count as u64).ok_or_else(|| std::io::Error::other(TOO_MUCH))?;
        Ok(count)
    }
}

const TOO_MUCH: &str = "it unpacks to more than the limits allow";

fn stream_error(format: &str, source: std::io::Error) -> Error {
    // The second text is the zip crate's.
    let text = source.to_string();
    if text.contains(TOO_MUCH) || text.contains("larger than its declared") {
        return Error::new(ErrorKind::Unsafe, format!("{format}: {TOO_MUCH}"));
    }
    match source.kind() {
        IoKind::UnexpectedEof => Error::new(ErrorKind::Format, format!("{format}: the archive is cut short")),
        _ => Error::new(ErrorKind::Format, format!("{format}: the archive is damaged")).with_source(source),
    }
}

fn damaged(error: ZipError) -> Error {
    match error {
        ZipError::UnsupportedArchive(_) => {
            Error::new(ErrorKind::Unsupported, "zip: this kind of archive is not read").with_source(error)
        }
        error => Error::new(ErrorKind::Format, "zip: the archive is damaged or cut short").with_source(error),
    }
}

/// Writes a member that says it has `declared` bytes; more, or fewer, is an error.
pub(crate) fn write_limited(member: impl Read, to: &Path, declared: u64) -> Result<()> {
    let failed = |source| Error::new(ErrorKind::Io, "cannot write its scratch copy").with_source(source);
    let mut out = BufWriter::new(File::create(to).map_err(failed)?);
    let mut member = member.take(declared.saturating_add(1));
    let mut buffer = vec![0; 1 << 16];
    let mut count = 0_u64;
    loop {
        match member.read(&mut buffer) {
            Ok(0) => break,
            Ok(length) => {
                count += length as u64;
                if count > declared {
                    let expected = format!("{declared} bytes, as declared");
                    return Err(Error::expected(ErrorKind::Unsafe, "member", expected, "more"));
                }
                out.write_all(&buffer[..length]).map_err(failed)?;
            }
            Err(error) if error.kind() == IoKind::Interrupted => {}
            Err(source) => return Err(stream_error("member", source)),
        }
    }
    if count != declared {
        let expected = format!("{declared} bytes, as declared");
        return Err(Error::expected(ErrorKind::Format, "member", expected, format!("{count}: it is cut short")));
    }
    out.flush().map_err(failed)
}

/// The name with `/` between folders; refuses whatever is not simply a path inside the archive.
fn clean_name(name: &str) -> Result<String> {
    let unified = name.replace('\\', "/");
    let drive = unified.get(1..2) == Some(":");
    let outside =
        unified.starts_with('/') || drive || unified.contains('\0') || unified.split('/').any(|part| part == "..");
    if outside || unified.is_empty() {
        let expected = "a path inside the archive";
        return Err(Error::expected(ErrorKind::Unsafe, "member name", expected, format!("{name:?}")));
    }
    let parts: Vec<&str> = unified.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    Ok(parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_inside() {
        assert_eq!(clean_name("./a//b\\c.tif").unwrap(), "a/b/c.tif");
        for bad in ["/etc/passwd", "../x", "a/../../x", "C:\\x", "\\\\host\\x", "..", "", "a\0b", "a\\..\\b"] {
            assert_eq!(clean_name(bad).unwrap_err().kind(), ErrorKind::Unsafe, "{bad:?}");
        }
    }

    #[test]
    fn members_keep_their_word() {
        let folder = tempfile::tempdir().unwrap();
        let to = folder.path().join("x");
        write_limited(&b"abc"[..], &to, 3).unwrap();
        assert_eq!(std::fs::read(&to).unwrap(), b"abc");
        assert_eq!(write_limited(&b"abcd"[..], &to, 3).unwrap_err().kind(), ErrorKind::Unsafe);
        assert_eq!(write_limited(&b"ab"[..], &to, 3).unwrap_err().kind(), ErrorKind::Format);
    }
}
