//! Named tensors that stay in their file until they are asked for.
//!
//! A [`TensorMap`] knows names, shapes and number types; the values are read from the mapped bytes on demand, one
//! tensor at a time, so that loading a network needs no second copy of the whole file.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use crate::{Error, ErrorKind, Result};

/// How a stored number is encoded. Always little-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the names are the documentation")]
pub enum DType {
    F64,
    F32,
    F16,
    Bf16,
    I64,
    I32,
    I16,
    I8,
    U64,
    U32,
    U16,
    U8,
    Bool,
}

impl DType {
    /// Bytes a number takes.
    pub fn size(self) -> usize {
        match self {
            DType::F64 | DType::I64 | DType::U64 => 8,
            DType::F32 | DType::I32 | DType::U32 => 4,
            DType::F16 | DType::Bf16 | DType::I16 | DType::U16 => 2,
            DType::I8 | DType::U8 | DType::Bool => 1,
        }
    }
}

/// A file's bytes: mapped, embedded in the program, or inflated from a compressed entry.
#[derive(Clone)]
pub(crate) enum Bytes {
    Mapped(Arc<memmap2::Mmap>),
    Static(&'static [u8]),
    Owned(Arc<Vec<u8>>),
}

impl std::ops::Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Bytes::Mapped(map) => map,
            Bytes::Static(bytes) => bytes,
            Bytes::Owned(bytes) => bytes,
        }
    }
}

/// Tensors of fewer bytes are not worth a call to the system.
#[cfg(unix)]
const LARGE_TENSOR: usize = 1 << 20;

impl Bytes {
    /// Tells the system that a part of a mapped file will not be read again soon, so that it does not count as memory in use: a model
    /// that is copied out of its file tensor by tensor is then never held twice. Another read finds the same bytes.
    #[cfg_attr(
        unix,
        expect(
            unsafe_code,
            reason = "advice that discards is unsafe in general, though not for read-only maps of files"
        )
    )]
    fn set_aside(&self, start: usize, length: usize) {
        #[cfg(unix)]
        if let Self::Mapped(map) = self
            && length >= LARGE_TENSOR
        {
            // SAFETY: the map is read-only and backed by the file: a page that was let go is read from the file again.
            // An advice that is not taken changes nothing, so its error is none.
            let _ = unsafe { map.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, start, length) };
        }
        #[cfg(not(unix))]
        let _ = (start, length);
    }
}

/// Where one tensor lies.
#[derive(Clone)]
pub(crate) struct Stored {
    bytes: Bytes,
    /// Byte offset of element 0.
    start: usize,
    shape: Vec<usize>,
    /// In elements; `None`: row-major without gaps.
    strides: Option<Vec<usize>>,
    dtype: DType,
}

/// A tensor may repeat its stored numbers (stride 0) up to this many elements; beyond, a few bytes of a hostile file
/// could ask for any amount of memory.
const MAX_EXPANDED: usize = 1 << 20;

/// No array of a network has more axes.
const MAX_AXES: usize = 16;

impl Stored {
    /// A tensor in `bytes[range]`, starting `offset` elements into it, with strides in elements. Everything is checked
    /// here, so that reading cannot fail or allocate more than the file justifies.
    pub(crate) fn new(
        bytes: Bytes,
        range: std::ops::Range<usize>,
        offset: usize,
        shape: Vec<usize>,
        strides: Vec<usize>,
        dtype: DType,
    ) -> Result<Self> {
        let wrong = |what: &str| Err(Error::format(format!("shape {shape:?}, strides {strides:?}: {what}")));
        if shape.len() != strides.len() || shape.len() > MAX_AXES {
            return wrong("axes do not fit");
        }
        let Some(count) = shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d)) else {
            return wrong("too many elements");
        };
        let stored = bytes.get(range.clone()).map_or(0, <[u8]>::len) / dtype.size();
        if count > 0 {
            let last = shape
                .iter()
                .zip(&strides)
                .try_fold(offset, |at, (&d, &s)| at.checked_add((d - 1).checked_mul(s)?))
                .filter(|&last| last < stored);
            if last.is_none() {
                return wrong(&format!("reaches beyond the {stored} stored elements"));
            }
            if count > stored.max(MAX_EXPANDED) {
                return wrong(&format!("repeats {stored} stored elements too often"));
            }
        }
        let start = if count > 0 { range.start + offset * dtype.size() } else { 0 };
        let contiguous = count == 0 || is_row_major(&shape, &strides);
        Ok(Self { bytes, start, shape, strides: (!contiguous).then_some(strides), dtype })
    }

    fn count(&self) -> usize {
        self.shape.iter().product()
    }
}

/// Whether elements follow each other without gaps. The stride of an axis of length 1 does not matter.
fn is_row_major(shape: &[usize], strides: &[usize]) -> bool {
    let mut expected = 1;
    for (&d, &s) in shape.iter().zip(strides).rev() {
        if d != 1 && s != expected {
            return false;
        }
        expected *= d;
    }
    true
}

/// Strides in elements of a row-major array without gaps; `None` where they overflow.
pub(crate) fn row_major(shape: &[usize]) -> Option<Vec<usize>> {
    let mut strides = vec![1usize; shape.len()];
    for i in (1..shape.len()).rev() {
        strides[i - 1] = strides[i].checked_mul(shape[i].max(1))?;
    }
    Some(strides)
}

/// One tensor of a checkpoint, still in the file.
#[derive(Clone, Copy)]
pub struct TensorView<'a> {
    /// The key in the state dict, without `module.` and `sam.`.
    pub name: &'a str,
    /// Axis lengths, outermost first; empty for a single number.
    pub shape: &'a [usize],
    /// How the numbers are stored.
    pub dtype: DType,
    stored: &'a Stored,
}

impl std::fmt::Debug for TensorView<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {:?} {:?}", self.name, self.shape, self.dtype)
    }
}

impl<'a> TensorView<'a> {
    /// Number of elements.
    pub fn count(&self) -> usize {
        self.stored.count()
    }

    /// The elements in row-major order, little-endian, as stored: borrowed from the file where they lie without gaps,
    /// else gathered.
    pub fn bytes(&self) -> Cow<'a, [u8]> {
        let size = self.dtype.size();
        let count = self.count();
        let all: &'a [u8] = &self.stored.bytes;
        let Some(strides) = &self.stored.strides else {
            return Cow::Borrowed(&all[self.stored.start..self.stored.start + count * size]);
        };
        let mut out = Vec::with_capacity(count * size);
        let mut index = vec![0usize; self.shape.len()];
        let mut at = self.stored.start;
        for _ in 0..count {
            out.extend_from_slice(&all[at..at + size]);
            // An odometer: the last axis turns fastest.
            for axis in (0..index.len()).rev() {
                index[axis] += 1;
                at += strides[axis] * size;
                if index[axis] < self.shape[axis] {
                    break;
                }
                at -= strides[axis] * size * self.shape[axis];
                index[axis] = 0;
            }
        }
        Cow::Owned(out)
    }

    /// The elements in row-major order as `f32`: halves widened, doubles and integers rounded to nearest, `Bool` 0 or 1.
    ///
    /// # Errors
    /// `Unsupported` for a number type without a conversion; there is none at present.
    pub fn to_f32(&self) -> Result<Vec<f32>> {
        let bytes = self.bytes();
        macro_rules! convert {
            ($number:ty, $size:literal, $to:expr) => {
                bytes
                    .as_chunks::<$size>()
                    .0
                    .iter()
                    .map(|&chunk| {
                        let convert: fn($number) -> f32 = $to;
                        convert(<$number>::from_le_bytes(chunk))
                    })
                    .collect()
            };
        }
        let values = match self.dtype {
            DType::F64 => convert!(f64, 8, |x| x as f32),
            DType::F32 => convert!(f32, 4, |x| x),
            DType::F16 => convert!(half::f16, 2, half::f16::to_f32),
            DType::Bf16 => convert!(half::bf16, 2, half::bf16::to_f32),
            DType::I64 => convert!(i64, 8, |x| x as f32),
            DType::I32 => convert!(i32, 4, |x| x as f32),
            DType::I16 => convert!(i16, 2, f32::from),
            DType::I8 => convert!(i8, 1, f32::from),
            DType::U64 => convert!(u64, 8, |x| x as f32),
            DType::U32 => convert!(u32, 4, |x| x as f32),
            DType::U16 => convert!(u16, 2, f32::from),
            DType::U8 => convert!(u8, 1, f32::from),
            DType::Bool => convert!(u8, 1, |x| if x == 0 { 0.0 } else { 1.0 }),
        };
        if self.stored.strides.is_none() {
            self.stored.bytes.set_aside(self.stored.start, self.count() * self.dtype.size());
        }
        Ok(values)
    }
}

/// The tensors of one section of a checkpoint, by name.
#[derive(Clone, Default)]
pub struct TensorMap {
    tensors: BTreeMap<String, Stored>,
}

impl std::fmt::Debug for TensorMap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

impl TensorMap {
    /// Adds a tensor, its name without the prefixes that training wrappers add.
    pub(crate) fn insert(&mut self, name: &str, stored: Stored) -> Result<()> {
        let mut short = name;
        while let Some(rest) = short.strip_prefix("module.").or_else(|| short.strip_prefix("sam.")) {
            short = rest;
        }
        if self.tensors.insert(short.to_owned(), stored).is_some() {
            return Err(Error::format(format!("two tensors are named {short:?}")));
        }
        Ok(())
    }

    pub(crate) fn remove_prefixed(&mut self, prefix: &str) {
        self.tensors.retain(|name, _| !name.starts_with(prefix));
    }

    /// Number of tensors.
    pub fn len(&self) -> usize {
        self.tensors.len()
    }

    /// Whether there is no tensor.
    pub fn is_empty(&self) -> bool {
        self.tensors.is_empty()
    }

    /// Names, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// Whether there is a tensor of that name.
    pub fn contains(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// All tensors, sorted by name.
    pub fn iter(&self) -> impl Iterator<Item = TensorView<'_>> {
        self.tensors.iter().map(|(name, stored)| TensorView { name, shape: &stored.shape, dtype: stored.dtype, stored })
    }

    /// The tensor of that name.
    pub fn get(&self, name: &str) -> Option<TensorView<'_>> {
        let (name, stored) = self.tensors.get_key_value(name)?;
        Some(TensorView { name, shape: &stored.shape, dtype: stored.dtype, stored })
    }

    /// The tensor of that name and shape.
    ///
    /// # Errors
    /// `Tensor` where it is missing or has another shape.
    pub fn require(&self, name: &str, shape: &[usize]) -> Result<TensorView<'_>> {
        let view = self
            .get(name)
            .ok_or_else(|| Error::new(ErrorKind::Tensor, format!("tensor {name} is missing (expected {shape:?})")))?;
        if view.shape != shape {
            let message = format!("tensor {name}: expected shape {shape:?}, found {:?}", view.shape);
            return Err(Error::new(ErrorKind::Tensor, message));
        }
        Ok(view)
    }

    /// Whether exactly the expected tensors are here, each of its shape.
    ///
    /// # Errors
    /// `Tensor`, naming the first five missing, unexpected and mis-shaped tensors and how many there are.
    pub fn check<N: AsRef<str>, S: AsRef<[usize]>>(&self, expected: &[(N, S)]) -> Result<()> {
        self.check_allowing(expected, |_| false)
    }

    /// As [`TensorMap::check`], but further tensors for which `allowed` holds do no harm: buffers and heads that a
    /// network does not use.
    ///
    /// # Errors
    /// As [`TensorMap::check`].
    pub fn check_allowing<N: AsRef<str>, S: AsRef<[usize]>>(
        &self,
        expected: &[(N, S)],
        allowed: impl Fn(&str) -> bool,
    ) -> Result<()> {
        let mut missing = Vec::new();
        let mut misshaped = Vec::new();
        let mut known = std::collections::BTreeSet::new();
        for (name, shape) in expected {
            let (name, shape) = (name.as_ref(), shape.as_ref());
            known.insert(name);
            match self.tensors.get(name) {
                None => missing.push(format!("{name} {shape:?}")),
                Some(stored) if stored.shape != shape => {
                    misshaped.push(format!("{name} (expected {shape:?}, found {:?})", stored.shape));
                }
                Some(_) => {}
            }
        }
        let extra: Vec<String> =
            self.names().filter(|name| !known.contains(name) && !allowed(name)).map(str::to_owned).collect();
        let problems: Vec<String> = [("missing", &missing), ("of another shape", &misshaped), ("unexpected", &extra)]
            .into_iter()
            .filter(|(_, names)| !names.is_empty())
            .map(|(what, names)| format!("{} {what}: {}", names.len(), first_five(names)))
            .collect();
        if problems.is_empty() {
            return Ok(());
        }
        Err(Error::new(ErrorKind::Tensor, format!("tensors do not fit; {}", problems.join("; "))))
    }
}

/// The first five of a list, and that there are more.
pub(crate) fn first_five(names: &[impl AsRef<str>]) -> String {
    let shown: Vec<&str> = names.iter().take(5).map(AsRef::as_ref).collect();
    let dots = if names.len() > 5 { ", …" } else { "" };
    format!("{}{dots}", shown.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(offset: usize, shape: &[usize], strides: &[usize]) -> Result<Stored> {
        let bytes: Vec<u8> = (0..24u32).flat_map(|i| (i as f32).to_le_bytes()).collect();
        let range = 0..bytes.len();
        Stored::new(Bytes::Owned(Arc::new(bytes)), range, offset, shape.to_vec(), strides.to_vec(), DType::F32)
    }

    fn values(stored: Stored) -> Vec<f32> {
        let mut map = TensorMap::default();
        map.insert("x", stored).unwrap();
        map.get("x").unwrap().to_f32().unwrap()
    }

    #[test]
    fn strides_and_offsets() {
        assert_eq!(values(stored(0, &[2, 3], &[3, 1]).unwrap()), [0., 1., 2., 3., 4., 5.]);
        assert_eq!(values(stored(0, &[3, 2], &[1, 3]).unwrap()), [0., 3., 1., 4., 2., 5.]);
        assert_eq!(values(stored(10, &[2, 2, 2], &[4, 0, 2]).unwrap()), [10., 12., 10., 12., 14., 16., 14., 16.]);
        assert_eq!(values(stored(23, &[], &[]).unwrap()), [23.]);
        assert_eq!(values(stored(99, &[4, 0], &[1, 1]).unwrap()), [0f32; 0]);
    }

    #[test]
    fn strides_as_a_slow_loop() {
        let (shape, strides) = ([3, 2, 2], [1, 3, 9]);
        let mut slow = Vec::new();
        for a in 0..3 {
            for b in 0..2 {
                for c in 0..2 {
                    slow.push((2 + a + 3 * b + 9 * c) as f32);
                }
            }
        }
        assert_eq!(values(stored(2, &shape, &strides).unwrap()), slow);
    }

    #[test]
    fn ranges_are_checked() {
        assert!(stored(0, &[24], &[1]).is_ok());
        assert!(stored(1, &[24], &[1]).is_err());
        assert!(stored(0, &[2, 2], &[23, 1]).is_err());
        assert!(stored(0, &[usize::MAX, 2], &[0, 0]).is_err());
        assert!(stored(0, &[1 << 40], &[0]).is_err());
        assert!(stored(usize::MAX, &[2], &[usize::MAX]).is_err());
        assert!(stored(0, &[2], &[1, 1]).is_err());
    }

    #[test]
    fn differences_are_named() {
        let mut map = TensorMap::default();
        map.insert("module.sam.a", stored(0, &[2], &[1]).unwrap()).unwrap();
        map.insert("b", stored(0, &[3], &[1]).unwrap()).unwrap();
        assert!(map.insert("sam.b", stored(0, &[3], &[1]).unwrap()).is_err());
        assert!(map.check(&[("a", [2]), ("b", [3])]).is_ok());
        assert!(map.check_allowing(&[("a", [2])], |name| name == "b").is_ok());
        let error = map.check(&[("a", vec![2, 1]), ("c", vec![])]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Tensor);
        assert_eq!(
            error.to_string(),
            "tensors do not fit; 1 missing: c []; 1 of another shape: a (expected [2, 1], found [2]); 1 unexpected: b"
        );
    }
}
