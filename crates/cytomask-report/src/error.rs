//! This crate's error.

/// What went wrong, without the particulars.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// Tables or images do not belong together.
    Shape,
    /// A score or setting lies outside what is allowed.
    Value,
    /// A picture cannot be made.
    Drawing,
}

/// An error that names the argument, what was expected and what was found.
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    message: String,
}

impl Error {
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    /// What went wrong.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

impl From<cytomask_eval::Error> for Error {
    fn from(error: cytomask_eval::Error) -> Self {
        let kind = match error.kind() {
            cytomask_eval::ErrorKind::Shape => ErrorKind::Shape,
            _ => ErrorKind::Value,
        };
        Self::new(kind, error.to_string())
    }
}
