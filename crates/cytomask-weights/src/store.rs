//! The folder of downloaded weights.
//!
//! One flat folder; each file has the name that the registry gives it, and only files whose hash was right get that
//! name. Beside them, while or after a download: `NAME.part` (the bytes so far) and `NAME.lock` (so that two processes
//! do not write one file). A mirror is a server with the same flat layout: `BASE/NAME`.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::registry::{self, Model, ModelFile, Role};
use crate::write::atomically;
use crate::{Checkpoint, Error, ErrorKind, FileHashes, Kind, Result};

/// Environment variable that moves the folder.
pub const CACHE_DIR_VARIABLE: &str = "CYTOMASK_CACHE_DIR";

/// Environment variable with the base address of a mirror.
pub const MIRROR_VARIABLE: &str = "CYTOMASK_MIRROR";

/// Where weights are kept and fetched from.
#[derive(Clone, Debug)]
pub struct StoreOptions {
    /// The folder. `None`: that of `CYTOMASK_CACHE_DIR`, else `models` in the platform's cache folder for cytomask.
    pub dir: Option<PathBuf>,
    /// Base address of a mirror, used instead of the published addresses. `None`: that of `CYTOMASK_MIRROR`, if any.
    pub mirror: Option<String>,
    /// How long a server may stay silent, and how long connecting may take. There is no limit on the whole download.
    pub inactivity: Duration,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self { dir: None, mirror: None, inactivity: Duration::from_secs(60) }
    }
}

/// The files of a model on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ModelPaths {
    /// The network.
    pub model: PathBuf,
    /// The instance decoder, where the model has one.
    pub decoder: Option<PathBuf>,
}

/// A model of the registry and what of it is on this machine.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Listed {
    /// The registry's row.
    pub model: &'static Model,
    /// Files that are here.
    pub cached: Vec<PathBuf>,
    /// Their size together, bytes.
    pub bytes: u64,
    /// Whether all files are here (or none is needed).
    pub complete: bool,
}

/// The folder of weights.
#[derive(Clone, Debug)]
pub struct Store {
    dir: PathBuf,
    #[cfg_attr(not(feature = "download"), expect(dead_code, reason = "only downloads ask for it"))]
    mirror: Option<String>,
    #[cfg_attr(not(feature = "download"), expect(dead_code, reason = "only downloads ask for it"))]
    inactivity: Duration,
}

impl Store {
    /// Finds the folder; it is created when something is put into it.
    ///
    /// # Errors
    /// `NotFound` where the platform has no cache folder and none is given.
    pub fn open(options: StoreOptions) -> Result<Self> {
        let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        let dir = options
            .dir
            .or_else(|| variable(CACHE_DIR_VARIABLE).map(PathBuf::from))
            .or_else(|| directories::ProjectDirs::from("", "", "cytomask").map(|dirs| dirs.cache_dir().join("models")));
        let dir = dir.ok_or_else(|| {
            Error::new(ErrorKind::NotFound, format!("this machine has no cache folder; set {CACHE_DIR_VARIABLE}"))
        })?;
        let mirror = options.mirror.or_else(|| variable(MIRROR_VARIABLE)?.into_string().ok());
        Ok(Self { dir, mirror, inactivity: options.inactivity })
    }

    /// The folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Every model of the registry and what of it is here.
    pub fn list(&self) -> Vec<Listed> {
        registry::models().iter().map(|model| self.listed(model)).collect()
    }

    fn listed(&self, model: &'static Model) -> Listed {
        let paths = model.files.iter().map(|file| self.dir.join(file.name));
        let cached: Vec<PathBuf> = paths.filter(|path| path.is_file()).collect();
        let bytes = cached.iter().filter_map(|path| path.metadata().ok()).map(|data| data.len()).sum();
        let complete = if model.files.is_empty() { model.is_embedded() } else { cached.len() == model.files.len() };
        Listed { model, cached, bytes, complete }
    }

    /// The files of a model, which must be here.
    ///
    /// # Errors
    /// `NotFound` for an unknown name or a model that has not been pulled; `Unsupported` for one that cannot be run.
    pub fn files(&self, name: &str) -> Result<ModelPaths> {
        let model = runnable(name)?;
        let mut model_path = None;
        let mut decoder = None;
        for file in model.files {
            let path = self.dir.join(file.name);
            if !path.is_file() {
                let message = format!(
                    "model {name} is not on this machine ({} is missing from {}); fetch it: cytomask models pull {name}",
                    file.name,
                    self.dir.display()
                );
                return Err(Error::new(ErrorKind::NotFound, message));
            }
            match file.role {
                Role::Model => model_path = Some(path),
                Role::Decoder => decoder = Some(path),
                // Found beside the network by whoever wants it.
                Role::Size => {}
            }
        }
        let model = model_path
            .ok_or_else(|| Error::new(ErrorKind::NotFound, format!("model {name} is inside the program: no file")))?;
        Ok(ModelPaths { model, decoder })
    }

    /// The network's file of a model; see [`Store::files`].
    ///
    /// # Errors
    /// As [`Store::files`].
    pub fn path(&self, name: &str) -> Result<PathBuf> {
        self.files(name).map(|files| files.model)
    }

    /// Downloads the files of a model that are not here yet. `progress` is told the bytes of the current file so far
    /// and, where the server says, in all.
    ///
    /// An interrupted download goes on where it stopped. A file gets its name only when its hash is right.
    ///
    /// # Errors
    /// `NotFound` for an unknown name; `Unsupported` for a model that cannot be run or a program built without
    /// downloads; `Network`; `Hash`; `Io`.
    pub fn pull(&self, name: &str, progress: &mut dyn FnMut(u64, Option<u64>)) -> Result<Vec<PathBuf>> {
        let model = runnable(name)?;
        model.files.iter().map(|file| self.pull_file(file, progress)).collect()
    }

    #[cfg(not(feature = "download"))]
    fn pull_file(&self, file: &ModelFile, _progress: &mut dyn FnMut(u64, Option<u64>)) -> Result<PathBuf> {
        let path = self.dir.join(file.name);
        if path.is_file() {
            return Ok(path);
        }
        let message = format!("this program was built without downloads; fetch {} and import it", file.name);
        Err(Error::new(ErrorKind::Unsupported, message))
    }

    #[cfg(feature = "download")]
    pub(crate) fn pull_file(&self, file: &ModelFile, progress: &mut dyn FnMut(u64, Option<u64>)) -> Result<PathBuf> {
        let path = self.dir.join(file.name);
        if path.is_file() {
            return Ok(path);
        }
        let url = match (&self.mirror, file.url) {
            (Some(base), _) => format!("{}/{}", base.trim_end_matches('/'), file.name),
            (None, Some(url)) => url.to_owned(),
            (None, None) => {
                return Err(Error::new(ErrorKind::Unsupported, format!("{} has no public address", file.name)));
            }
        };
        self.create_dir()?;
        let _lock = self.lock(file)?;
        // Another process may have finished it while this one waited.
        if path.is_file() {
            return Ok(path);
        }
        let part = self.dir.join(format!("{}.part", file.name));
        crate::download::download(&url, &part, self.inactivity, progress)?;
        if let Err(error) = check(file, &part) {
            // Resuming could not mend it.
            drop(std::fs::remove_file(&part));
            return Err(error);
        }
        std::fs::rename(&part, &path).map_err(|source| Error::io("cannot rename to", &path, source))?;
        Ok(path)
    }

    /// Waits until no other process writes this file. The lock ends with the returned handle, or with the process.
    #[cfg(feature = "download")]
    fn lock(&self, file: &ModelFile) -> Result<File> {
        let path = self.dir.join(format!("{}.lock", file.name));
        let lock = File::options().create(true).write(true).truncate(false).open(&path);
        let lock = lock.map_err(|source| Error::io("cannot create", &path, source))?;
        match lock.lock() {
            Ok(()) => Ok(lock),
            // Some network file systems have no locks; going without is better than not at all.
            Err(error) if error.kind() == std::io::ErrorKind::Unsupported => Ok(lock),
            Err(source) => Err(Error::io("cannot lock", &path, source)),
        }
    }

    fn create_dir(&self) -> Result<()> {
        std::fs::create_dir_all(&self.dir).map_err(|source| Error::io("cannot create the folder", &self.dir, source))
    }

    /// Compares the files of a model with the published hashes.
    ///
    /// # Errors
    /// `NotFound` where the model or a file is missing; `Hash` for the first file that differs; `Io`.
    pub fn verify(&self, name: &str) -> Result<()> {
        let files = runnable(name)?.files;
        if !files.is_empty() {
            self.files(name)?;
        }
        files.iter().try_for_each(|file| check(file, &self.dir.join(file.name)))
    }

    /// Copies a file from disk into the store, as one of a model's files: the one whose hash it has. With `force` a
    /// file of another hash is taken too, as network or decoder according to its content.
    ///
    /// # Errors
    /// `NotFound` for an unknown model; `Hash` for a file that is none of the model's; `Io`; with `force` also the
    /// errors of [`Checkpoint::open`].
    pub fn import(&self, name: &str, from: impl AsRef<Path>, force: bool) -> Result<PathBuf> {
        let from = from.as_ref();
        let model = runnable(name)?;
        if model.files.is_empty() {
            return Err(Error::new(ErrorKind::Value, format!("model {name} is inside the program and takes no files")));
        }
        let hashes = FileHashes::of(from)?;
        let known = model.files.iter().find(|file| file.hashes.iter().all(|hash| hashes.matches(hash)));
        let file = match known {
            Some(file) => file,
            None if force => {
                let kind = Checkpoint::open(from)?.kind();
                let role = if kind == Kind::Decoder { Role::Decoder } else { Role::Model };
                model.files.iter().find(|file| file.role == role).ok_or_else(|| {
                    Error::new(ErrorKind::Value, format!("model {name} has no decoder file")).with_path(from)
                })?
            }
            None => {
                let expected: Vec<String> =
                    model.files.iter().flat_map(|file| file.hashes).map(ToString::to_string).collect();
                let message = format!(
                    "this is no file of {name}: expected one of {}; found xxh128:{}, sha256:{}",
                    expected.join(", "),
                    hashes.xxh128,
                    hashes.sha256
                );
                return Err(Error::new(ErrorKind::Hash, message).with_path(from));
            }
        };
        self.create_dir()?;
        let target = self.dir.join(file.name);
        copy(from, &target)?;
        Ok(target)
    }

    /// Copies the files of a model into a folder, under the names that [`Store::import`] on another machine does not
    /// care about and a mirror serves.
    ///
    /// # Errors
    /// As [`Store::files`], and `Io`.
    pub fn export(&self, name: &str, dir: impl AsRef<Path>) -> Result<Vec<PathBuf>> {
        let dir = dir.as_ref();
        let files = self.files(name)?;
        std::fs::create_dir_all(dir).map_err(|source| Error::io("cannot create the folder", dir, source))?;
        let mut out = Vec::new();
        for from in std::iter::once(&files.model).chain(&files.decoder) {
            let target = dir.join(from.file_name().unwrap_or_default());
            copy(from, &target)?;
            out.push(target);
        }
        Ok(out)
    }
}

/// A model of the registry that cytomask can run.
fn runnable(name: &str) -> Result<&'static Model> {
    let model = registry::find(name).ok_or_else(|| {
        Error::new(ErrorKind::NotFound, format!("no model is named {name:?}; see: cytomask models list"))
    })?;
    if !model.supported {
        let message = format!("cytomask {} cannot run {name} ({}) yet", env!("CARGO_PKG_VERSION"), model.family);
        return Err(Error::new(ErrorKind::Unsupported, message));
    }
    Ok(model)
}

/// Compares a file with what is published of it.
pub(crate) fn check(file: &ModelFile, path: &Path) -> Result<()> {
    let hashes = FileHashes::of(path)?;
    match file.hashes.iter().find(|hash| !hashes.matches(hash)) {
        None => Ok(()),
        Some(hash) => {
            let message = format!("{}: wrong hash: expected {hash}, found {}", file.name, hashes.like(hash));
            Err(Error::new(ErrorKind::Hash, message).with_path(path))
        }
    }
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    // Copying a file onto itself would leave nothing.
    if let (Ok(a), Ok(b)) = (from.canonicalize(), to.canonicalize())
        && a == b
    {
        return Ok(());
    }
    let mut source = File::open(from).map_err(|source| Error::io("cannot open", from, source))?;
    atomically(to, |target| {
        std::io::copy(&mut source, target)
            .map(drop)
            .map_err(|source| Error::new(ErrorKind::Io, format!("cannot copy {}", from.display())).with_source(source))
    })
}

#[cfg(all(test, feature = "download"))]
mod tests;
