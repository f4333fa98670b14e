//! Files of `torch.save`: a zip archive with a pickle (`archive/data.pkl`) and one entry of raw numbers a storage
//! (`archive/data/0`, …). Layout: `torch/serialization.py`, `caffe2/serialize/inline_container.h`.

use std::collections::BTreeMap;
use std::io::{Cursor, Read};
use std::ops::Range;
use std::sync::Arc;

use zip::{CompressionMethod, ZipArchive};

use crate::pickle::{Id, Pickle, PickledTensor, Value};
use crate::tensor::{Bytes, Stored, TensorMap, first_five};
use crate::{Error, ErrorKind, Result};

/// No state dict needs more; a training checkpoint of ViT-H takes about one megabyte.
const MAX_PICKLE_BYTES: u64 = 64 << 20;

/// How much longer than its file an inflated entry may be (the format's own limit is about 1032).
const MAX_INFLATION: u64 = 1032;

/// First bytes of a zip archive.
pub(crate) const ZIP_MAGIC: &[u8] = b"PK\x03\x04";

/// First bytes of a file of `torch.save` before version 1.6: a pickled number.
pub(crate) const LEGACY_MAGIC: &[u8] = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19";

/// What a legacy file's owner can do.
pub(crate) fn legacy_error() -> Error {
    Error::new(
        ErrorKind::Unsupported,
        "this is a torch file of the old format (before 1.6); load and save it once in Python: \
         torch.save(torch.load(\"old.pt\", map_location=\"cpu\"), \"new.pt\")",
    )
}

/// The state dicts of a file.
pub(crate) struct Sections {
    pub(crate) model: TensorMap,
    pub(crate) decoder: Option<TensorMap>,
}

type Archive<'a> = ZipArchive<Cursor<&'a [u8]>>;

fn zip_error(error: zip::result::ZipError) -> Error {
    Error::format("damaged or truncated zip archive").with_source(error)
}

pub(crate) fn read(bytes: &Bytes) -> Result<Sections> {
    let mut archive = ZipArchive::new(Cursor::new(&**bytes)).map_err(zip_error)?;
    let prefix = prefix(&archive)?;
    if let Some(index) = archive.index_for_name(&format!("{prefix}byteorder"))
        && read_entry(&mut archive, index, 64)? != b"little"
    {
        return Err(Error::new(ErrorKind::Unsupported, "big-endian torch file"));
    }
    let index = archive.index_for_name(&format!("{prefix}data.pkl")).ok_or_else(no_pickle)?;
    let pickled = read_entry(&mut archive, index, MAX_PICKLE_BYTES)?;
    let pickle = Pickle::read(&pickled)?;
    let top = entries(&pickle, pickle.result()).ok_or_else(|| match pickle.value(pickle.result()) {
        Value::Opaque(class) if !class.is_empty() => Error::new(
            ErrorKind::Unsupported,
            format!("the file holds a whole pickled object ({class}), not a state dict; save model.state_dict()"),
        ),
        _ => Error::format("the file holds no dictionary of tensors"),
    })?;
    let mut storages = Storages { bytes, archive, prefix, known: BTreeMap::new() };
    let section = |key: &str| top.get(key).and_then(|&id| entries(&pickle, id));
    let mut model = TensorMap::default();
    let mut decoder = None;
    if let Some(state) = section("model_state") {
        storages.collect(&pickle, &state, &mut model)?;
        if let Some(state) = section("decoder_state") {
            let mut map = TensorMap::default();
            storages.collect(&pickle, &state, &mut map)?;
            // Some trainers save the whole U-Net; its encoder is the model's.
            map.remove_prefixed("encoder.");
            decoder = Some(map);
        }
    } else {
        // Flat, or wrapped as other projects do.
        let state = ["state_dict", "model"].iter().find_map(|key| section(key));
        storages.collect(&pickle, state.as_ref().unwrap_or(&top), &mut model)?;
    }
    if model.is_empty() && decoder.as_ref().is_none_or(TensorMap::is_empty) {
        let keys: Vec<&str> = top.keys().copied().collect();
        return Err(Error::format(format!("no tensors found; the keys are: {}", first_five(&keys))));
    }
    Ok(Sections { model, decoder })
}

fn no_pickle() -> Error {
    Error::format("a zip archive, but not of torch.save: it holds no data.pkl")
}

/// The folder in the archive, with its slash: `archive/`, or the file's name at the time it was saved.
fn prefix(archive: &Archive<'_>) -> Result<String> {
    let names = archive.file_names().filter_map(|name| name.ok());
    let mut found: Vec<String> = names.filter_map(|name| name.strip_suffix("data.pkl").map(str::to_owned)).collect();
    found.retain(|prefix| prefix.is_empty() || prefix.ends_with('/'));
    found.sort_by_key(String::len);
    let first = found.into_iter().next().ok_or_else(no_pickle)?;
    if archive.index_for_name(&format!("{first}constants.pkl")).is_some() {
        return Err(Error::new(ErrorKind::Unsupported, "a TorchScript program, not a state dict"));
    }
    Ok(first)
}

/// An entry's bytes, its checksum verified.
fn read_entry(archive: &mut Archive<'_>, index: usize, limit: u64) -> Result<Vec<u8>> {
    let entry = archive.by_index(index).map_err(zip_error)?;
    let limit = limit.min(entry.compressed_size().saturating_mul(MAX_INFLATION));
    if entry.size() > limit {
        return Err(Error::format(format!("zip entry of {} bytes; expected at most {limit}", entry.size())));
    }
    let expected = entry.size();
    let mut out = Vec::new();
    entry
        .take(limit + 1)
        .read_to_end(&mut out)
        .map_err(|source| Error::format("damaged or truncated zip entry").with_source(source))?;
    if out.len() as u64 != expected {
        return Err(Error::format(format!("zip entry of {} bytes; expected {expected}", out.len())));
    }
    Ok(out)
}

/// The string-keyed entries of a dictionary value.
fn entries<'p>(pickle: &'p Pickle<'_>, id: Id) -> Option<BTreeMap<&'p str, Id>> {
    let Value::Dict(entries) = pickle.value(id) else {
        return None;
    };
    let named = entries.iter().filter_map(|&(key, value)| match pickle.value(key) {
        Value::Str(key) => Some((*key, value)),
        _ => None,
    });
    Some(named.collect())
}

/// The raw entries of the archive, found as tensors ask for them.
struct Storages<'a> {
    bytes: &'a Bytes,
    archive: Archive<'a>,
    prefix: String,
    known: BTreeMap<String, (Bytes, Range<usize>)>,
}

impl Storages<'_> {
    /// Adds the tensors of a state dict; other values in it are passed over.
    fn collect(&mut self, pickle: &Pickle<'_>, state: &BTreeMap<&str, Id>, out: &mut TensorMap) -> Result<()> {
        for (name, &id) in state {
            if let Value::Tensor(tensor) = pickle.value(id) {
                let stored = self.tensor(tensor).map_err(|error| in_tensor(name, error))?;
                out.insert(name, stored)?;
            }
        }
        Ok(())
    }

    fn tensor(&mut self, tensor: &PickledTensor<'_>) -> Result<Stored> {
        let dtype = tensor
            .dtype
            .ok_or_else(|| Error::new(ErrorKind::Unsupported, "its number type (complex, quantised or 8-bit float)"))?;
        let (bytes, range) = self.storage(tensor.storage.key)?;
        let size = tensor.storage.dtype.map_or(1, crate::DType::size);
        if tensor.storage.count.checked_mul(size).is_none_or(|expected| expected > range.len()) {
            let message = format!("storage of {} elements in {} bytes", tensor.storage.count, range.len());
            return Err(Error::format(message));
        }
        Stored::new(bytes, range, tensor.offset, tensor.shape.clone(), tensor.strides.clone(), dtype)
    }

    fn storage(&mut self, key: &str) -> Result<(Bytes, Range<usize>)> {
        if let Some(known) = self.known.get(key) {
            return Ok(known.clone());
        }
        let name = format!("{}data/{key}", self.prefix);
        let index = self
            .archive
            .index_for_name(&name)
            .ok_or_else(|| Error::format(format!("the archive lacks the entry {name}")))?;
        let entry = self.archive.by_index_raw(index).map_err(zip_error)?;
        let found = if entry.compression() == CompressionMethod::Stored {
            let (start, length) = (entry.data_start(), entry.compressed_size());
            let range = start.and_then(|start| {
                let start = usize::try_from(start).ok()?;
                let end = start.checked_add(usize::try_from(length).ok()?)?;
                (end <= self.bytes.len()).then_some(start..end)
            });
            let range = range.ok_or_else(|| Error::format(format!("entry {name} reaches beyond the file's end")))?;
            (self.bytes.clone(), range)
        } else {
            drop(entry);
            let inflated = read_entry(&mut self.archive, index, u64::MAX)?;
            let range = 0..inflated.len();
            (Bytes::Owned(Arc::new(inflated)), range)
        };
        self.known.insert(key.to_owned(), found.clone());
        Ok(found)
    }
}

pub(crate) fn in_tensor(name: &str, error: Error) -> Error {
    Error::new(error.kind(), format!("tensor {name}")).with_source(error)
}
