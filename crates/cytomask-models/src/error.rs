//! This crate's error.

use std::path::{Path, PathBuf};

/// What went wrong, without the particulars.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The operating system refused a read or write.
    Io,
    /// A file is damaged or not of the format it claims.
    Format,
    /// A tensor that the network needs is not in the checkpoint.
    MissingTensor,
    /// A tensor or image has another shape than the network needs.
    Shape,
    /// A value lies outside what is allowed.
    Value,
    /// The network, checkpoint or build cannot do what was asked.
    Unsupported,
    /// The compute device refused or cannot be had.
    Device,
}

/// An error that names the file, tensor or argument, what was expected and what was found.
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    message: String,
    path: Option<PathBuf>,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// An error of `kind` with a message of its own.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), path: None, source: None }
    }

    /// Shapes that do not fit: names the thing, what was expected and what was found.
    pub fn shape(what: impl std::fmt::Display, expected: impl std::fmt::Debug, found: impl std::fmt::Debug) -> Self {
        Self::new(ErrorKind::Shape, format!("{what}: expected shape {expected:?}, found {found:?}"))
    }

    /// Names the file.
    #[must_use]
    pub fn with_path(mut self, path: impl AsRef<Path>) -> Self {
        self.path.get_or_insert_with(|| path.as_ref().to_path_buf());
        self
    }

    /// Keeps the cause.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// What went wrong.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The file, if one is concerned.
    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(path) = &self.path {
            write!(f, "{}: ", path.display())?;
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
        let kind = match error.kind() {
            cytomask_image::ErrorKind::Io => ErrorKind::Io,
            cytomask_image::ErrorKind::Format => ErrorKind::Format,
            cytomask_image::ErrorKind::Unsupported => ErrorKind::Unsupported,
            cytomask_image::ErrorKind::Shape => ErrorKind::Shape,
            _ => ErrorKind::Value,
        };
        Self::new(kind, "image").with_source(error)
    }
}

impl From<cytomask_weights::Error> for Error {
    fn from(error: cytomask_weights::Error) -> Self {
        let kind = match error.kind() {
            cytomask_weights::ErrorKind::Io => ErrorKind::Io,
            cytomask_weights::ErrorKind::Format => ErrorKind::Format,
            cytomask_weights::ErrorKind::Unsupported => ErrorKind::Unsupported,
            cytomask_weights::ErrorKind::NotFound => ErrorKind::MissingTensor,
            cytomask_weights::ErrorKind::Tensor => ErrorKind::Shape,
            _ => ErrorKind::Value,
        };
        Self::new(kind, "weights").with_source(error)
    }
}
