//! Bytes of a file by position, never more than the file has.

use std::io::{ErrorKind as IoKind, Read, Seek, SeekFrom};

use crate::{Error, ErrorKind, Result};

/// A file or a buffer.
pub(crate) trait ReadSeek: Read + Seek + Send {}

impl<T: Read + Seek + Send> ReadSeek for T {}

/// A file with its length, which bounds every allocation made on behalf of a length found inside it.
pub(crate) struct Input {
    reader: Box<dyn ReadSeek>,
    length: u64,
}

impl Input {
    pub(crate) fn new(reader: Box<dyn ReadSeek>, length: u64) -> Self {
        Self { reader, length }
    }

    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    /// The first `count` bytes, or fewer when there are not so many.
    pub(crate) fn head(&mut self, count: u64) -> Result<Vec<u8>> {
        // A folder opened as a file has a length and fails here.
        self.read(0, count.min(self.length.max(1)).min(count)).or_else(|error| {
            if error.kind() == ErrorKind::Format { self.read(0, self.length.min(count)) } else { Err(error) }
        })
    }

    /// The whole file, if it holds at most `limit` bytes.
    pub(crate) fn whole(&mut self, limit: u64) -> Result<Vec<u8>> {
        if self.length > limit {
            let message = format!("the file is too large: {} bytes, the limit for this format is {limit}", self.length);
            return Err(Error::new(ErrorKind::Value, message));
        }
        self.read(0, self.length)
    }

    /// Exactly `count` bytes from `offset`.
    pub(crate) fn read(&mut self, offset: u64, count: u64) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.read_into(offset, count, &mut bytes)?;
        Ok(bytes)
    }

    /// Appends exactly `count` bytes from `offset` to `into`.
    pub(crate) fn read_into(&mut self, offset: u64, count: u64, into: &mut Vec<u8>) -> Result<()> {
        if offset.checked_add(count).is_none_or(|end| end > self.length) {
            return Err(cut_short());
        }
        let io = |error: std::io::Error| match error.kind() {
            IoKind::UnexpectedEof => cut_short(),
            _ => Error::new(ErrorKind::Io, "cannot read").with_source(error),
        };
        self.reader.seek(SeekFrom::Start(offset)).map_err(io)?;
        let start = into.len();
        // The file has so many bytes.
        into.resize(start + count as usize, 0);
        self.reader.read_exact(&mut into[start..]).map_err(io)
    }
}

pub(crate) fn cut_short() -> Error {
    Error::new(ErrorKind::Format, "the file is cut short: it refers to bytes after its end")
}
