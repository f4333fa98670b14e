//! This crate's error: whatever the rooms below report, with its kind.

/// What went wrong, without the particulars.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// An image cannot be read, converted or written.
    Image,
    /// Weights cannot be found or read.
    Weights,
    /// The network failed.
    Model,
    /// A setting does not fit the model or the image.
    Setting,
    /// Not possible with this model, build or mode.
    Unsupported,
}

/// An error that names the file, tensor or argument, what was expected and what was found.
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    message: String,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// An error of `kind` with a message of its own.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), source: None }
    }

    /// What went wrong.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// Puts the file or place in front.
    #[must_use]
    pub(crate) fn with_context(mut self, context: impl std::fmt::Display) -> Self {
        self.message = format!("{context}: {}", self.message);
        self
    }

    fn wrapping(kind: ErrorKind, source: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self { kind, message: source.to_string(), source: Some(Box::new(source)) }
    }
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        // The message already tells the cause; only what lies below it is new.
        self.source.as_deref().and_then(std::error::Error::source)
    }
}

impl From<cytomask_image::Error> for Error {
    fn from(error: cytomask_image::Error) -> Self {
        Self::wrapping(ErrorKind::Image, error)
    }
}

impl From<cytomask_eval::Error> for Error {
    fn from(error: cytomask_eval::Error) -> Self {
        Self::wrapping(ErrorKind::Setting, error)
    }
}

impl From<cytomask_weights::Error> for Error {
    fn from(error: cytomask_weights::Error) -> Self {
        Self::wrapping(ErrorKind::Weights, error)
    }
}

impl From<cytomask_models::Error> for Error {
    fn from(error: cytomask_models::Error) -> Self {
        let kind = match error.kind() {
            cytomask_models::ErrorKind::Unsupported => ErrorKind::Unsupported,
            _ => ErrorKind::Model,
        };
        Self::wrapping(kind, error)
    }
}
