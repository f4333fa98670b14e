//! A reader of the pickles that `torch.save` writes. Nothing is executed: calls of the few known functions that
//! rebuild tensors are understood, every other class or function yields an opaque value.
//!
//! Opcodes and their meaning: CPython's `Lib/pickletools.py`; tensors: `torch/_utils.py` and
//! `torch/serialization.py`. All values lie in one flat arena and name each other by index, so that neither deep
//! nesting nor cycles can exhaust the stack, and memory is bounded by the length of the pickle.

use std::borrow::Cow;
use std::collections::HashMap;

use crate::{DType, Error, ErrorKind, Result};

/// Values that one pickle may hold. A training checkpoint of ViT-H has some ten thousand.
const MAX_VALUES: usize = 2 << 20;

/// Bytes written as text, all together.
const MAX_ENCODED: usize = 1 << 30;

/// Axes of a tensor and arguments of a call. Bounds what calling one long memoised tuple again and again can cost.
const MAX_ARGUMENTS: usize = 16;

/// Index of a value in [`Pickle::values`].
pub(crate) type Id = u32;

/// A storage that a tensor lies in: an entry `data/{key}` beside the pickle.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Storage<'a> {
    pub(crate) key: &'a str,
    /// `None`: untyped; the tensor says what it holds.
    pub(crate) dtype: Option<DType>,
    /// Elements (bytes where untyped).
    pub(crate) count: usize,
}

/// A tensor as `_rebuild_tensor_v2` gets it.
#[derive(Clone, Debug)]
pub(crate) struct PickledTensor<'a> {
    pub(crate) storage: Storage<'a>,
    /// `None`: a number type that this crate does not read.
    pub(crate) dtype: Option<DType>,
    pub(crate) offset: usize,
    pub(crate) shape: Vec<usize>,
    pub(crate) strides: Vec<usize>,
}

/// A numpy array, as its state tells.
#[derive(Clone, Debug, Default)]
pub(crate) struct PickledArray {
    pub(crate) shape: Vec<usize>,
    /// A [`Value::NumberType`].
    pub(crate) number_type: Option<Id>,
    pub(crate) fortran: bool,
    /// [`Value::Bytes`], or a [`Value::List`] for an array of objects.
    pub(crate) data: Option<Id>,
}

/// One value.
#[derive(Debug)]
pub(crate) enum Value<'a> {
    Int(i64),
    Str(&'a str),
    Global(&'a str, &'a str),
    Tuple(Vec<Id>),
    List(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    Storage(Storage<'a>),
    Tensor(Box<PickledTensor<'a>>),
    Float(f64),
    Bytes(Cow<'a, [u8]>),
    /// A numpy array; its data are set by its state, which comes after it.
    Array(Box<PickledArray>),
    /// A numpy number type: its code (`f8`) and whether it is big-endian.
    NumberType(&'a str, bool),
    /// A number, string or object that no state dict needs; with its class where it has one.
    Opaque(&'a str),
}

/// A pickle's values and which of them is the result.
pub(crate) struct Pickle<'a> {
    values: Vec<Value<'a>>,
    result: Id,
}

impl<'a> Pickle<'a> {
    pub(crate) fn result(&self) -> Id {
        self.result
    }

    pub(crate) fn value(&self, id: Id) -> &Value<'a> {
        &self.values[id as usize]
    }

    /// Reads a pickle.
    pub(crate) fn read(bytes: &'a [u8]) -> Result<Self> {
        let machine = Machine {
            bytes,
            at: 0,
            values: Vec::new(),
            stack: Vec::new(),
            marks: Vec::new(),
            memo: HashMap::new(),
            copied: 0,
        };
        machine.run()
    }
}

struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    values: Vec<Value<'a>>,
    stack: Vec<Id>,
    /// Stack heights at which a mark was set.
    marks: Vec<usize>,
    memo: HashMap<u64, Id>,
    /// Dictionary entries copied so far; bounded, since one long memoised dictionary could be copied again and again.
    copied: usize,
}

fn damaged(what: &str) -> Error {
    Error::format(format!("damaged pickle: {what}"))
}

impl<'a> Machine<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8]> {
        let end = self.at.checked_add(count).filter(|&end| end <= self.bytes.len());
        let end = end.ok_or_else(|| damaged("it ends early"))?;
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N)?);
        Ok(out)
    }

    fn u8(&mut self) -> Result<usize> {
        Ok(usize::from(self.array::<1>()?[0]))
    }

    fn u16(&mut self) -> Result<usize> {
        Ok(usize::from(u16::from_le_bytes(self.array()?)))
    }

    fn u32(&mut self) -> Result<usize> {
        Ok(u32::from_le_bytes(self.array()?) as usize)
    }

    fn u64(&mut self) -> Result<usize> {
        usize::try_from(u64::from_le_bytes(self.array()?)).map_err(|_| damaged("a length"))
    }

    /// A line without its newline.
    fn line(&mut self) -> Result<&'a str> {
        let rest = &self.bytes[self.at..];
        let end = rest.iter().position(|&b| b == b'\n').ok_or_else(|| damaged("it ends early"))?;
        self.at += end + 1;
        text(&rest[..end])
    }

    fn push(&mut self, value: Value<'a>) -> Result<()> {
        if self.values.len() >= MAX_VALUES {
            return Err(Error::format(format!("pickle with more than {MAX_VALUES} values")));
        }
        self.stack.push(self.values.len() as Id);
        self.values.push(value);
        Ok(())
    }

    fn opaque(&mut self) -> Result<()> {
        self.push(Value::Opaque(""))
    }

    /// Height of the innermost mark: what lies below belongs to an outer construct.
    fn floor(&self) -> usize {
        self.marks.last().copied().unwrap_or(0)
    }

    fn pop(&mut self) -> Result<Id> {
        if self.stack.len() <= self.floor() {
            return Err(damaged("its stack is empty"));
        }
        self.stack.pop().ok_or_else(|| damaged("its stack is empty"))
    }

    fn top(&self) -> Result<Id> {
        if self.stack.len() <= self.floor() {
            return Err(damaged("its stack is empty"));
        }
        self.stack.last().copied().ok_or_else(|| damaged("its stack is empty"))
    }

    fn pop_mark(&mut self) -> Result<Vec<Id>> {
        let height = self.marks.pop().ok_or_else(|| damaged("a mark is missing"))?;
        Ok(self.stack.split_off(height))
    }

    fn remember(&mut self, key: u64) -> Result<()> {
        let id = self.top()?;
        self.memo.insert(key, id);
        Ok(())
    }

    fn recall(&mut self, key: u64) -> Result<()> {
        let id = *self.memo.get(&key).ok_or_else(|| damaged("it names a value that it does not hold"))?;
        // The stack is bounded by the pickle's length: each opcode puts one value on it.
        self.stack.push(id);
        Ok(())
    }

    fn tuple(&mut self, count: usize) -> Result<()> {
        if self.stack.len() - self.floor().min(self.stack.len()) < count {
            return Err(damaged("its stack is empty"));
        }
        let items = self.stack.split_off(self.stack.len() - count);
        self.push(Value::Tuple(items))
    }

    /// A string of `count` bytes. `surrogatepass` strings of Python that are no UTF-8 become opaque.
    fn string(&mut self, count: usize) -> Result<()> {
        let bytes = self.take(count)?;
        match std::str::from_utf8(bytes) {
            Ok(text) => self.push(Value::Str(text)),
            Err(_) => self.opaque(),
        }
    }

    fn bytes(&mut self, count: usize) -> Result<()> {
        let bytes = self.take(count)?;
        self.push(Value::Bytes(Cow::Borrowed(bytes)))
    }

    /// Gives a numpy array `(version, shape, type, fortran, data)` and a numpy type `(version, order, …)`.
    fn build(&mut self, object: Id, state: Id) {
        let Value::Tuple(state) = self.value(state) else { return };
        let state: Vec<Id> = state.iter().take(MAX_ARGUMENTS).copied().collect();
        match (self.value(object), state.as_slice()) {
            (Value::Array(_), &[_, shape, number_type, fortran, data]) => {
                let Ok(shape) = self.sizes(shape) else { return };
                let fortran = matches!(self.value(fortran), Value::Int(1));
                let filled = PickledArray { shape, number_type: Some(number_type), fortran, data: Some(data) };
                self.values[object as usize] = Value::Array(Box::new(filled));
            }
            (&Value::NumberType(code, _), &[_, order, ..]) => {
                let big = matches!(self.value(order), Value::Str(">"));
                self.values[object as usize] = Value::NumberType(code, big);
            }
            _ => {}
        }
    }

    /// A two's-complement number of `count` bytes; beyond 64 bits it is opaque.
    fn long(&mut self, count: usize) -> Result<()> {
        let bytes = self.take(count)?;
        if count > 8 {
            return self.opaque();
        }
        let fill = if bytes.last().is_some_and(|b| b & 0x80 != 0) { 0xff } else { 0 };
        let mut wide = [fill; 8];
        wide[..count].copy_from_slice(bytes);
        self.push(Value::Int(i64::from_le_bytes(wide)))
    }

    fn append(&mut self, list: Id, items: Vec<Id>) {
        if let Value::List(values) = &mut self.values[list as usize] {
            values.extend(items);
        }
    }

    fn set_items(&mut self, dict: Id, items: &[Id]) -> Result<()> {
        if !items.len().is_multiple_of(2) {
            return Err(damaged("a dictionary's key has no value"));
        }
        if let Value::Dict(entries) = &mut self.values[dict as usize] {
            entries.extend(items.as_chunks::<2>().0.iter().map(|&[key, value]| (key, value)));
        }
        Ok(())
    }

    fn run(mut self) -> Result<Pickle<'a>> {
        loop {
            match self.take(1)?[0] {
                // PROTO
                0x80 => {
                    let version = self.u8()?;
                    if version > 5 {
                        return Err(Error::new(ErrorKind::Unsupported, format!("pickle protocol {version}")));
                    }
                }
                0x95 => drop(self.take(8)?), // FRAME: only a hint for buffering
                b'.' => {
                    let result = self.pop()?;
                    return Ok(Pickle { values: self.values, result });
                }
                b'(' => self.marks.push(self.stack.len()),
                b'0' => {
                    // POP also takes a mark that lies on top.
                    if self.marks.last() == Some(&self.stack.len()) {
                        self.marks.pop();
                    } else {
                        self.pop()?;
                    }
                }
                b'1' => drop(self.pop_mark()?),
                b'2' => {
                    let id = self.top()?;
                    self.stack.push(id);
                }
                // Constants.
                b'N' => self.opaque()?,
                0x88 => self.push(Value::Int(1))?,
                0x89 => self.push(Value::Int(0))?,
                b'I' => {
                    let line = self.line()?;
                    self.number(line)?;
                }
                b'L' => {
                    let line = self.line()?;
                    self.number(line.trim_end_matches('L'))?;
                }
                b'J' => {
                    let value = i32::from_le_bytes(self.array()?);
                    self.push(Value::Int(value.into()))?;
                }
                b'K' => {
                    let value = self.u8()?;
                    self.push(Value::Int(value as i64))?;
                }
                b'M' => {
                    let value = self.u16()?;
                    self.push(Value::Int(value as i64))?;
                }
                0x8a => {
                    let count = self.u8()?;
                    self.long(count)?;
                }
                0x8b => {
                    let count = self.u32()?;
                    self.long(count)?;
                }
                b'F' => {
                    let line = self.line()?;
                    match line.parse() {
                        Ok(number) => self.push(Value::Float(number))?,
                        Err(_) => self.opaque()?,
                    }
                }
                b'G' => {
                    let number = f64::from_be_bytes(self.array()?);
                    self.push(Value::Float(number))?;
                }
                b'S' => {
                    // A quoted Python 2 string; escapes stay as they are.
                    let line = self.line()?;
                    let inner = line.get(1..line.len().saturating_sub(1)).unwrap_or("");
                    self.push(Value::Str(inner))?;
                }
                b'V' => {
                    let line = self.line()?;
                    self.push(Value::Str(line))?;
                }
                b'T' | b'X' => {
                    let count = self.u32()?;
                    self.string(count)?;
                }
                b'U' | 0x8c => {
                    let count = self.u8()?;
                    self.string(count)?;
                }
                0x8d => {
                    let count = self.u64()?;
                    self.string(count)?;
                }
                b'B' => {
                    let count = self.u32()?;
                    self.bytes(count)?;
                }
                b'C' => {
                    let count = self.u8()?;
                    self.bytes(count)?;
                }
                0x8e | 0x96 => {
                    let count = self.u64()?;
                    self.bytes(count)?;
                }
                // Containers.
                b')' => self.push(Value::Tuple(Vec::new()))?,
                b't' => {
                    let items = self.pop_mark()?;
                    self.push(Value::Tuple(items))?;
                }
                0x85 => self.tuple(1)?,
                0x86 => self.tuple(2)?,
                0x87 => self.tuple(3)?,
                b']' => self.push(Value::List(Vec::new()))?,
                b'l' => {
                    let items = self.pop_mark()?;
                    self.push(Value::List(items))?;
                }
                b'a' => {
                    let item = self.pop()?;
                    let list = self.top()?;
                    self.append(list, vec![item]);
                }
                b'e' => {
                    let items = self.pop_mark()?;
                    let list = self.top()?;
                    self.append(list, items);
                }
                b'}' => self.push(Value::Dict(Vec::new()))?,
                b'd' => {
                    let items = self.pop_mark()?;
                    self.push(Value::Dict(Vec::new()))?;
                    let dict = self.top()?;
                    self.set_items(dict, &items)?;
                }
                b's' => {
                    let value = self.pop()?;
                    let key = self.pop()?;
                    let dict = self.top()?;
                    self.set_items(dict, &[key, value])?;
                }
                b'u' => {
                    let items = self.pop_mark()?;
                    let dict = self.top()?;
                    self.set_items(dict, &items)?;
                }
                0x8f => self.opaque()?, // EMPTY_SET
                0x90 => {
                    self.pop_mark()?; // ADDITEMS
                    self.top()?;
                }
                0x91 => {
                    self.pop_mark()?; // FROZENSET
                    self.opaque()?;
                }
                // The memo.
                b'p' => {
                    let key = self.memo_key()?;
                    self.remember(key)?;
                }
                b'q' => {
                    let key = self.u8()?;
                    self.remember(key as u64)?;
                }
                b'r' => {
                    let key = self.u32()?;
                    self.remember(key as u64)?;
                }
                0x94 => self.remember(self.memo.len() as u64)?,
                b'g' => {
                    let key = self.memo_key()?;
                    self.recall(key)?;
                }
                b'h' => {
                    let key = self.u8()?;
                    self.recall(key as u64)?;
                }
                b'j' => {
                    let key = self.u32()?;
                    self.recall(key as u64)?;
                }
                // Classes, calls and objects.
                b'c' => {
                    let module = self.line()?;
                    let name = self.line()?;
                    self.push(Value::Global(module, name))?;
                }
                0x93 => {
                    let (name, module) = (self.pop()?, self.pop()?);
                    match (self.value(module), self.value(name)) {
                        (&Value::Str(module), &Value::Str(name)) => self.push(Value::Global(module, name))?,
                        _ => return Err(damaged("a class without a name")),
                    }
                }
                b'R' | 0x81 => {
                    let (arguments, class) = (self.pop()?, self.pop()?);
                    self.call(class, arguments)?;
                }
                0x92 => {
                    self.pop()?; // NEWOBJ_EX: keyword arguments
                    let (arguments, class) = (self.pop()?, self.pop()?);
                    self.call(class, arguments)?;
                }
                b'o' => {
                    let items = self.pop_mark()?;
                    let class = items.first().map_or("", |&class| self.class_name(class));
                    self.push(Value::Opaque(class))?;
                }
                b'i' => {
                    let (_, name) = (self.line()?, self.line()?);
                    self.pop_mark()?;
                    self.push(Value::Opaque(name))?;
                }
                b'b' => {
                    // BUILD: of interest for numpy's objects; not the attributes of others (`_metadata` of a state dict).
                    let state = self.pop()?;
                    let object = self.top()?;
                    self.build(object, state);
                }
                b'P' => {
                    self.line()?;
                    self.opaque()?;
                }
                b'Q' => {
                    let id = self.pop()?;
                    let storage = self.persistent(id)?;
                    self.push(storage)?;
                }
                0x82 => {
                    self.take(1)?;
                    self.opaque()?;
                }
                0x83 => {
                    self.take(2)?;
                    self.opaque()?;
                }
                0x84 => {
                    self.take(4)?;
                    self.opaque()?;
                }
                opcode => return Err(damaged(&format!("unknown opcode 0x{opcode:02x} at byte {}", self.at - 1))),
            }
        }
    }

    fn value(&self, id: Id) -> &Value<'a> {
        &self.values[id as usize]
    }

    fn class_name(&self, id: Id) -> &'a str {
        match self.value(id) {
            Value::Global(_, name) => name,
            _ => "",
        }
    }

    fn memo_key(&mut self) -> Result<u64> {
        self.line()?.parse().map_err(|_| damaged("a memo index"))
    }

    fn number(&mut self, line: &str) -> Result<()> {
        match line.parse() {
            Ok(value) => self.push(Value::Int(value)),
            Err(_) => self.opaque(),
        }
    }

    /// `function(*arguments)`, for the functions that state dicts are made of.
    fn call(&mut self, function: Id, arguments: Id) -> Result<()> {
        let &Value::Global(module, name) = self.value(function) else {
            return self.opaque();
        };
        let arguments = match self.value(arguments) {
            Value::Tuple(arguments) if arguments.len() <= MAX_ARGUMENTS => arguments.clone(),
            _ => return self.push(Value::Opaque(name)),
        };
        match (module, name) {
            ("collections", "OrderedDict" | "defaultdict") | ("builtins" | "__builtin__", "dict") => {
                let entries = arguments.last().map_or_else(Vec::new, |&list| self.pairs(list));
                self.copied += entries.len();
                if self.copied > MAX_VALUES {
                    return Err(Error::format(format!("pickle with more than {MAX_VALUES} values")));
                }
                self.push(Value::Dict(entries))
            }
            ("torch._utils", "_rebuild_tensor" | "_rebuild_tensor_v2" | "_rebuild_tensor_v3") => {
                let tensor = self.tensor(name, &arguments)?;
                self.push(Value::Tensor(Box::new(tensor)))
            }
            ("torch._utils", "_rebuild_parameter" | "_rebuild_parameter_with_state") => {
                let data = *arguments.first().ok_or_else(|| damaged("a parameter without data"))?;
                self.stack.push(data);
                Ok(())
            }
            ("numpy.core.multiarray" | "numpy._core.multiarray", "_reconstruct") => {
                self.push(Value::Array(Box::default()))
            }
            ("numpy", "dtype") => match arguments.first().map(|&code| self.value(code)) {
                Some(&Value::Str(code)) => self.push(Value::NumberType(code, false)),
                _ => self.push(Value::Opaque(name)),
            },
            ("numpy.core.multiarray" | "numpy._core.multiarray", "scalar") => {
                let (number_type, data) = (arguments.first().copied(), arguments.get(1).copied());
                let (shape, fortran) = (Vec::new(), false);
                self.push(Value::Array(Box::new(PickledArray { shape, number_type, fortran, data })))
            }
            ("_codecs", "encode") => match arguments.first().map(|&text| self.value(text)) {
                // Bytes as protocol 2 has them: each a character.
                Some(&Value::Str(text)) => {
                    self.copied += text.len();
                    if self.copied > MAX_ENCODED {
                        return Err(Error::format(format!("pickle with more than {MAX_ENCODED} encoded bytes")));
                    }
                    self.push(Value::Bytes(text.chars().map(|letter| letter as u8).collect()))
                }
                _ => self.push(Value::Opaque(name)),
            },
            _ => self.push(Value::Opaque(name)),
        }
    }

    /// The key–value pairs in a list of pairs or a dictionary.
    fn pairs(&self, id: Id) -> Vec<(Id, Id)> {
        match self.value(id) {
            Value::Dict(entries) => entries.clone(),
            Value::List(items) => items
                .iter()
                .filter_map(|&item| match self.value(item) {
                    Value::Tuple(pair) | Value::List(pair) if pair.len() == 2 => Some((pair[0], pair[1])),
                    _ => None,
                })
                .collect(),
            _ => Vec::new(),
        }
    }

    fn size(&self, id: Id) -> Result<usize> {
        match self.value(id) {
            Value::Int(value) => usize::try_from(*value).map_err(|_| damaged("a negative size")),
            _ => Err(damaged("a size that is no number")),
        }
    }

    fn sizes(&self, id: Id) -> Result<Vec<usize>> {
        match self.value(id) {
            Value::Tuple(items) | Value::List(items) if items.len() <= MAX_ARGUMENTS => {
                items.iter().map(|&item| self.size(item)).collect()
            }
            _ => Err(damaged("a shape that is no short tuple")),
        }
    }

    fn tensor(&self, function: &str, arguments: &[Id]) -> Result<PickledTensor<'a>> {
        let &[storage, offset, shape, strides, ref rest @ ..] = arguments else {
            return Err(damaged("a tensor without shape"));
        };
        let &Value::Storage(storage) = self.value(storage) else {
            return Err(damaged("a tensor without storage"));
        };
        // v3: requires_grad, hooks, dtype; the storage is untyped.
        let dtype = match (function, rest) {
            ("_rebuild_tensor_v3", &[_, _, dtype, ..]) => dtype_of(self.class_name(dtype)),
            _ => storage.dtype,
        };
        let (offset, shape, strides) = (self.size(offset)?, self.sizes(shape)?, self.sizes(strides)?);
        Ok(PickledTensor { storage, dtype, offset, shape, strides })
    }

    /// `("storage", class, key, location, count)`.
    fn persistent(&self, id: Id) -> Result<Value<'a>> {
        let Value::Tuple(items) = self.value(id) else {
            return Ok(Value::Opaque(""));
        };
        let &[kind, class, key, _, count, ..] = items.as_slice() else {
            return Ok(Value::Opaque(""));
        };
        let (&Value::Str("storage"), &Value::Str(key)) = (self.value(kind), self.value(key)) else {
            return Ok(Value::Opaque(""));
        };
        let count = self.size(count)?;
        Ok(Value::Storage(Storage { key, dtype: dtype_of_storage(self.class_name(class)), count }))
    }
}

fn text(bytes: &[u8]) -> Result<&str> {
    std::str::from_utf8(bytes).map_err(|_| damaged("text that is not UTF-8"))
}

fn dtype_of_storage(class: &str) -> Option<DType> {
    Some(match class {
        "DoubleStorage" => DType::F64,
        "FloatStorage" => DType::F32,
        "HalfStorage" => DType::F16,
        "BFloat16Storage" => DType::Bf16,
        "LongStorage" => DType::I64,
        "IntStorage" => DType::I32,
        "ShortStorage" => DType::I16,
        "CharStorage" => DType::I8,
        "ByteStorage" => DType::U8,
        "BoolStorage" => DType::Bool,
        _ => return None,
    })
}

fn dtype_of(name: &str) -> Option<DType> {
    Some(match name {
        "float64" => DType::F64,
        "float32" => DType::F32,
        "float16" => DType::F16,
        "bfloat16" => DType::Bf16,
        "int64" => DType::I64,
        "int32" => DType::I32,
        "int16" => DType::I16,
        "int8" => DType::I8,
        "uint64" => DType::U64,
        "uint32" => DType::U32,
        "uint16" => DType::U16,
        "uint8" => DType::U8,
        "bool" => DType::Bool,
        _ => return None,
    })
}
