//! This crate's error.

use std::path::Path;

/// What went wrong, without the particulars.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The operating system refused a read or write.
    Io,
    /// A file is damaged, cut short or not of the format it claims.
    Format,
    /// A format, sample type or option that is not supported.
    Unsupported,
    /// Sizes do not fit together.
    Shape,
    /// A value lies outside what is allowed, or a size over a limit.
    Value,
    /// A dataset, file or folder that is not there, or an image without its labels.
    NotFound,
    /// A file's hash is not the published one.
    Hash,
    /// An archive member that could do harm: a path out of the archive, a link, or more data than its size admits.
    Unsafe,
}

/// An error that names the archive and its member, what was expected and what was found.
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    message: String,
    archive: Option<String>,
    member: Option<String>,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// A result with this crate's error.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error of `kind` with a message of its own.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), archive: None, member: None, source: None }
    }

    /// A thing that is not what it should be.
    pub(crate) fn expected(
        kind: ErrorKind,
        what: &str,
        expected: impl std::fmt::Display,
        found: impl std::fmt::Display,
    ) -> Self {
        Self::new(kind, format!("{what}: expected {expected}, found {found}"))
    }

    pub(crate) fn io(path: impl AsRef<Path>, what: &str, source: std::io::Error) -> Self {
        Self::new(ErrorKind::Io, what).in_archive(path.as_ref().display()).with_source(source)
    }

    /// Names the archive, folder or file given by the user, unless one is named already.
    #[must_use]
    pub(crate) fn in_archive(mut self, name: impl std::fmt::Display) -> Self {
        self.archive.get_or_insert_with(|| name.to_string());
        self
    }

    /// Names the member of the archive, unless one is named already.
    #[must_use]
    pub(crate) fn at_member(mut self, name: impl std::fmt::Display) -> Self {
        self.member.get_or_insert_with(|| name.to_string());
        self
    }

    /// Keeps the cause.
    #[must_use]
    pub(crate) fn with_source(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// What went wrong.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The archive, folder or file, if one is concerned.
    pub fn archive(&self) -> Option<&str> {
        self.archive.as_deref()
    }

    /// The file inside the archive or folder, if one is concerned.
    pub fn member(&self) -> Option<&str> {
        self.member.as_deref()
    }
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for name in [&self.archive, &self.member].into_iter().flatten() {
            write!(f, "{name}: ")?;
        }
        f.write_str(&self.message)?;
        if let Some(source) = &self.source {
            write!(f, ": {source}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

impl From<cytomask_image::Error> for Error {
    fn from(error: cytomask_image::Error) -> Self {
        use cytomask_image::ErrorKind as Image;
        let kind = match error.kind() {
            Image::Io => ErrorKind::Io,
            Image::Unsupported => ErrorKind::Unsupported,
            Image::Shape => ErrorKind::Shape,
            Image::Value => ErrorKind::Value,
            _ => ErrorKind::Format,
        };
        // The file's name is that of a scratch copy; the caller names the member instead.
        let text = error.to_string();
        let prefix = error.path().map(|path| format!("{}: ", path.display())).unwrap_or_default();
        Self::new(kind, text.strip_prefix(&prefix).unwrap_or(&text))
    }
}
