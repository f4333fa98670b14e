//! Writing checkpoints: safetensors, and torch files in the layout that µSAM's Python reads.
//!
//! Files are written under a temporary name beside the target and renamed when complete.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Seek, Write};
use std::path::Path;

use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

use crate::tensor::row_major;
use crate::{DType, Error, ErrorKind, Result, TensorView};

/// Something that can be written as a tensor: a view of a checkpoint, or name, shape and values.
pub trait WriteTensor {
    /// Its key.
    fn name(&self) -> &str;
    /// Axis lengths, outermost first.
    fn shape(&self) -> &[usize];
    /// How its numbers are encoded.
    fn dtype(&self) -> DType;
    /// Its numbers, row-major, little-endian.
    fn bytes(&self) -> Cow<'_, [u8]>;
}

impl WriteTensor for TensorView<'_> {
    fn name(&self) -> &str {
        self.name
    }

    fn shape(&self) -> &[usize] {
        self.shape
    }

    fn dtype(&self) -> DType {
        self.dtype
    }

    fn bytes(&self) -> Cow<'_, [u8]> {
        TensorView::bytes(self)
    }
}

impl WriteTensor for (String, Vec<usize>, Vec<f32>) {
    fn name(&self) -> &str {
        &self.0
    }

    fn shape(&self) -> &[usize] {
        &self.1
    }

    fn dtype(&self) -> DType {
        DType::F32
    }

    fn bytes(&self) -> Cow<'_, [u8]> {
        Cow::Owned(self.2.iter().flat_map(|value| value.to_le_bytes()).collect())
    }
}

/// Values to be stored in half precision.
#[derive(Clone, Debug, PartialEq)]
pub struct HalfTensor {
    /// Its key.
    pub name: String,
    /// Axis lengths, outermost first.
    pub shape: Vec<usize>,
    /// Row-major; rounded to nearest on writing.
    pub values: Vec<f32>,
}

impl WriteTensor for HalfTensor {
    fn name(&self) -> &str {
        &self.name
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn dtype(&self) -> DType {
        DType::F16
    }

    fn bytes(&self) -> Cow<'_, [u8]> {
        Cow::Owned(self.values.iter().flat_map(|&value| half::f16::from_f32(value).to_le_bytes()).collect())
    }
}

impl<T: WriteTensor> WriteTensor for &T {
    fn name(&self) -> &str {
        (**self).name()
    }

    fn shape(&self) -> &[usize] {
        (**self).shape()
    }

    fn dtype(&self) -> DType {
        (**self).dtype()
    }

    fn bytes(&self) -> Cow<'_, [u8]> {
        (**self).bytes()
    }
}

/// The numbers, if their count fits the shape.
fn checked_bytes<T: WriteTensor>(tensor: &T) -> Result<Cow<'_, [u8]>> {
    let bytes = tensor.bytes();
    let expected = byte_count(tensor)?;
    if bytes.len() != expected {
        let (name, shape) = (tensor.name(), tensor.shape());
        let message = format!("tensor {name}, shape {shape:?}: expected {expected} bytes, found {}", bytes.len());
        return Err(Error::new(ErrorKind::Tensor, message));
    }
    Ok(bytes)
}

fn byte_count<T: WriteTensor>(tensor: &T) -> Result<usize> {
    let count = tensor.shape().iter().try_fold(tensor.dtype().size(), |n, &d| n.checked_mul(d));
    count.ok_or_else(|| Error::new(ErrorKind::Tensor, format!("tensor {}: too many elements", tensor.name())))
}

/// Refuses two tensors of one name: a reader would keep only one.
fn check_names<T: WriteTensor>(tensors: &[T]) -> Result<()> {
    let mut seen = std::collections::BTreeSet::new();
    match tensors.iter().map(WriteTensor::name).find(|&name| !seen.insert(name)) {
        Some(twice) => Err(Error::new(ErrorKind::Tensor, format!("two tensors are named {twice:?}"))),
        None => Ok(()),
    }
}

/// Writes a file under a temporary name and renames it when `body` has succeeded.
pub(crate) fn atomically(path: &Path, body: impl FnOnce(&mut BufWriter<File>) -> Result<()>) -> Result<()> {
    let io = |what| move |source| Error::io(what, path, source);
    let name = path.file_name().ok_or_else(|| Error::new(ErrorKind::Value, "not a file name").with_path(path))?;
    let temporary = path.with_file_name(format!(".{}.{}.tmp", name.to_string_lossy(), std::process::id()));
    let run = || {
        let mut file = BufWriter::new(File::create(&temporary).map_err(io("cannot create"))?);
        body(&mut file).map_err(|error| error.with_path(path))?;
        let file = file.into_inner().map_err(|error| error.into_error()).map_err(io("cannot write"))?;
        file.sync_all().map_err(io("cannot write"))?;
        std::fs::rename(&temporary, path).map_err(io("cannot rename to"))
    };
    run().inspect_err(|_| drop(std::fs::remove_file(&temporary)))
}

fn write_error(source: std::io::Error) -> Error {
    Error::new(ErrorKind::Io, "cannot write").with_source(source)
}

/// Writes tensors to a safetensors file, one after the other: no second copy of all of them is made.
///
/// # Errors
/// `Io`; `Tensor` where values do not fit a shape or two tensors have one name.
pub fn write_safetensors<T: WriteTensor>(
    path: impl AsRef<Path>,
    tensors: &[T],
    metadata: &BTreeMap<String, String>,
) -> Result<()> {
    check_names(tensors)?;
    // Larger numbers first, then by name, so that each lies aligned to its size.
    let mut order: Vec<&T> = tensors.iter().collect();
    order.sort_by(|a, b| (b.dtype().size(), a.name()).cmp(&(a.dtype().size(), b.name())));
    let mut header = serde_json::Map::new();
    if !metadata.is_empty() {
        header.insert("__metadata__".into(), serde_json::json!(metadata));
    }
    let mut end = 0usize;
    for tensor in &order {
        let start = end;
        end = start
            .checked_add(byte_count(tensor)?)
            .ok_or_else(|| Error::new(ErrorKind::Tensor, "too many elements in all"))?;
        let entry = serde_json::json!({
            "dtype": safetensors_name(tensor.dtype()), "shape": tensor.shape(), "data_offsets": [start, end],
        });
        header.insert(tensor.name().to_owned(), entry);
    }
    let mut header = serde_json::Value::Object(header).to_string().into_bytes();
    header.resize(header.len().next_multiple_of(8), b' ');
    atomically(path.as_ref(), |file| {
        file.write_all(&(header.len() as u64).to_le_bytes()).map_err(write_error)?;
        file.write_all(&header).map_err(write_error)?;
        order.iter().try_for_each(|tensor| file.write_all(&checked_bytes(tensor)?).map_err(write_error))
    })
}

fn safetensors_name(dtype: DType) -> &'static str {
    match dtype {
        DType::F64 => "F64",
        DType::F32 => "F32",
        DType::F16 => "F16",
        DType::Bf16 => "BF16",
        DType::I64 => "I64",
        DType::I32 => "I32",
        DType::I16 => "I16",
        DType::I8 => "I8",
        DType::U64 => "U64",
        DType::U32 => "U32",
        DType::U16 => "U16",
        DType::U8 => "U8",
        DType::Bool => "BOOL",
    }
}

/// The class of a typed storage in `torch`; the wider unsigned numbers have none.
fn storage_class(dtype: DType) -> Result<&'static str> {
    Ok(match dtype {
        DType::F64 => "DoubleStorage",
        DType::F32 => "FloatStorage",
        DType::F16 => "HalfStorage",
        DType::Bf16 => "BFloat16Storage",
        DType::I64 => "LongStorage",
        DType::I32 => "IntStorage",
        DType::I16 => "ShortStorage",
        DType::I8 => "CharStorage",
        DType::U8 => "ByteStorage",
        DType::Bool => "BoolStorage",
        DType::U64 | DType::U32 | DType::U16 => {
            return Err(Error::new(ErrorKind::Unsupported, format!("torch files cannot hold {dtype:?}")));
        }
    })
}

/// Writes a torch file that µSAM's Python opens: without `decoder` a flat state dict, with it
/// `{"model_state", "decoder_state"}`.
///
/// # Errors
/// `Io`; `Tensor` where values do not fit a shape or two tensors have one name.
pub fn write_torch<T: WriteTensor>(path: impl AsRef<Path>, model: &[T], decoder: Option<&[T]>) -> Result<()> {
    check_names(model)?;
    check_names(decoder.unwrap_or_default())?;
    let mut pickle = PickleWriter { out: vec![0x80, 2], storages: 0 };
    match decoder {
        None => pickle.state_dict(model)?,
        Some(decoder) => {
            pickle.out.extend(b"}(");
            pickle.string("model_state")?;
            pickle.state_dict(model)?;
            pickle.string("decoder_state")?;
            pickle.state_dict(decoder)?;
            pickle.out.push(b'u');
        }
    }
    pickle.out.push(b'.');
    atomically(path.as_ref(), |file| write_archive(file, &pickle.out, model.iter().chain(decoder.unwrap_or_default())))
}

fn write_archive<'t, T: WriteTensor + 't>(
    file: &mut (impl Write + Seek),
    pickle: &[u8],
    tensors: impl Iterator<Item = &'t T>,
) -> Result<()> {
    let mut zip = ZipWriter::new(file);
    // 64-byte alignment as torch's own, so that storages can be mapped.
    let options = SimpleFileOptions::default().compression_method(CompressionMethod::Stored).with_alignment(64);
    let mut add = |name: String, bytes: &[u8]| -> Result<()> {
        let options = options.large_file(bytes.len() > u32::MAX as usize);
        zip.start_file(name, options)
            .map_err(|source| Error::new(ErrorKind::Io, "cannot write").with_source(source))?;
        zip.write_all(bytes).map_err(write_error)
    };
    add("archive/data.pkl".into(), pickle)?;
    add("archive/byteorder".into(), b"little")?;
    for (index, tensor) in tensors.enumerate() {
        add(format!("archive/data/{index}"), &checked_bytes(tensor)?)?;
    }
    add("archive/version".into(), b"3\n")?;
    zip.finish().map_err(|source| Error::new(ErrorKind::Io, "cannot write").with_source(source))?;
    Ok(())
}

/// Writes protocol 2, without memo: longer than torch's own, and as good.
struct PickleWriter {
    out: Vec<u8>,
    storages: usize,
}

impl PickleWriter {
    fn string(&mut self, text: &str) -> Result<()> {
        let length = u32::try_from(text.len()).map_err(|_| Error::new(ErrorKind::Value, "a name of 4 GiB"))?;
        self.out.push(b'X');
        self.out.extend(length.to_le_bytes());
        self.out.extend(text.as_bytes());
        Ok(())
    }

    fn global(&mut self, module: &str, name: &str) {
        self.out.extend(format!("c{module}\n{name}\n").as_bytes());
    }

    fn int(&mut self, value: usize) {
        // LONG1 with eight bytes fits every size.
        self.out.extend([0x8a, 8]);
        self.out.extend((value as i64).to_le_bytes());
    }

    fn ints(&mut self, values: &[usize]) {
        self.out.push(b'(');
        values.iter().for_each(|&value| self.int(value));
        self.out.push(b't');
    }

    fn ordered_dict(&mut self) {
        self.global("collections", "OrderedDict");
        self.out.extend(b")R");
    }

    fn state_dict<T: WriteTensor>(&mut self, tensors: &[T]) -> Result<()> {
        self.ordered_dict();
        self.out.push(b'(');
        for tensor in tensors {
            self.string(tensor.name())?;
            self.tensor(tensor)?;
        }
        self.out.push(b'u');
        Ok(())
    }

    /// `_rebuild_tensor_v2(storage, 0, shape, strides, requires_grad = False, hooks = OrderedDict())`.
    fn tensor<T: WriteTensor>(&mut self, tensor: &T) -> Result<()> {
        let shape = tensor.shape();
        let strides = row_major(shape).ok_or_else(|| Error::new(ErrorKind::Tensor, "too many elements"))?;
        self.global("torch._utils", "_rebuild_tensor_v2");
        self.out.extend(b"((");
        self.string("storage")?;
        self.global("torch", storage_class(tensor.dtype())?);
        self.string(&self.storages.to_string())?;
        self.string("cpu")?;
        self.int(shape.iter().product());
        self.out.extend(b"tQ");
        self.int(0);
        self.ints(shape);
        self.ints(&strides);
        self.out.push(0x89);
        self.ordered_dict();
        self.out.extend(b"tR");
        self.storages += 1;
        Ok(())
    }
}
