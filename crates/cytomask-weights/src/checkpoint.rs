//! A checkpoint file, opened: which sections it holds and where its tensors lie.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::family::{self, Family};
use crate::tensor::Bytes;
use crate::torch::{self, Sections};
use crate::{ContentHash, Error, ErrorKind, Result, TensorMap, safetensors_file};

/// What a file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// A network, without instance decoder beside it.
    Model,
    /// A network and an instance decoder (`{"model_state", "decoder_state"}`).
    ModelWithDecoder,
    /// An instance decoder alone (µSAM's `*_decoder.pt`).
    Decoder,
}

/// A checkpoint file: torch zip-pickle or safetensors. Its tensors stay in the mapped file until they are asked for.
///
/// The file must not change while it is open: it is memory-mapped.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    model: TensorMap,
    decoder: Option<TensorMap>,
    metadata: BTreeMap<String, String>,
    path: Option<PathBuf>,
    hash: ContentHash,
}

impl Checkpoint {
    /// Opens a file. The format is told from the content, not from the name.
    ///
    /// # Errors
    /// `Io`; `Format` for a file that is no checkpoint, is damaged or truncated; `Unsupported` for torch files that
    /// hold something else than state dicts or are of the format before torch 1.6.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let file = File::open(path).map_err(|source| Error::io("cannot open", path, source))?;
        let length = file.metadata().map_err(|source| Error::io("cannot read", path, source))?;
        if length.is_dir() {
            return Err(Error::new(ErrorKind::Io, "is a folder; expected a checkpoint file").with_path(path));
        }
        if length.len() == 0 {
            return Err(Error::format("the file is empty").with_path(path));
        }
        let map = map(&file).map_err(|source| Error::io("cannot map", path, source))?;
        let hash = ContentHash::of_file(path);
        let mut checkpoint = Self::read(Bytes::Mapped(Arc::new(map)), hash).map_err(|error| error.with_path(path))?;
        checkpoint.path = Some(path.to_path_buf());
        Ok(checkpoint)
    }

    /// Opens a file of any tensors, network or not, e.g. maps that another program wrote: its first section.
    ///
    /// # Errors
    /// As [`Checkpoint::open`].
    pub fn open_tensors(path: impl AsRef<Path>) -> Result<TensorMap> {
        let checkpoint = Self::open(path)?;
        Ok(match checkpoint.decoder {
            Some(decoder) if checkpoint.model.is_empty() => decoder,
            _ => checkpoint.model,
        })
    }

    /// Reads a checkpoint that is compiled into the program.
    ///
    /// # Errors
    /// As [`Checkpoint::open`].
    pub fn from_bytes(bytes: &'static [u8]) -> Result<Self> {
        Self::read(Bytes::Static(bytes), ContentHash::of_bytes(bytes))
    }

    fn read(bytes: Bytes, hash: ContentHash) -> Result<Self> {
        let mut metadata = BTreeMap::new();
        let Sections { mut model, mut decoder } = if bytes.starts_with(torch::ZIP_MAGIC) {
            torch::read(&bytes)?
        } else if bytes.starts_with(torch::LEGACY_MAGIC) {
            return Err(torch::legacy_error());
        } else if safetensors_file::looks_like(&bytes) {
            let (sections, found) = safetensors_file::read(&bytes)?;
            metadata = found;
            sections
        } else {
            return Err(Error::format("not a checkpoint: neither a torch (.pt, .pth) nor a safetensors file"));
        };
        if decoder.is_none() && family::is_decoder(&model) {
            decoder = Some(std::mem::take(&mut model));
        }
        Ok(Self { model, decoder, metadata, path: None, hash })
    }

    /// The network's tensors; empty for a decoder file.
    pub fn model(&self) -> &TensorMap {
        &self.model
    }

    /// The tensors of the instance decoder, if the file holds one of its own.
    pub fn decoder(&self) -> Option<&TensorMap> {
        self.decoder.as_ref()
    }

    /// What the file holds.
    pub fn kind(&self) -> Kind {
        match (&self.decoder, self.model.is_empty()) {
            (None, _) => Kind::Model,
            (Some(_), false) => Kind::ModelWithDecoder,
            (Some(_), true) => Kind::Decoder,
        }
    }

    /// The architecture, told from the tensors.
    ///
    /// # Errors
    /// `Unsupported` for networks that are recognised but that cytomask cannot run; `Format` for unknown ones.
    pub fn family(&self) -> Result<Family> {
        let family = if self.kind() == Kind::Decoder { Ok(Family::UnetrDecoder) } else { family::infer(&self.model) };
        family.map_err(|error| match &self.path {
            Some(path) => error.with_path(path),
            None => error,
        })
    }

    /// Free-form notes of a safetensors file; empty for torch files.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    /// The SHA-256 of its bytes.
    pub fn hash(&self) -> &ContentHash {
        &self.hash
    }

    /// The file, unless the checkpoint is embedded.
    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }
}

#[expect(unsafe_code, reason = "mapping a file is unsafe by nature: it must not shrink while mapped, as documented")]
fn map(file: &File) -> std::io::Result<memmap2::Mmap> {
    // SAFETY: the map is read-only and only ever read as plain bytes; `Checkpoint` documents that the file must not
    // change, and the store replaces files by renaming, never in place.
    unsafe { memmap2::Mmap::map(file) }
}
