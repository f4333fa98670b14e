//! The table as a Parquet file for pandas, R, DuckDB and the like.
//!
//! One row group, plain encoding, gzip pages; whole numbers are required `INT32` (unsigned) or `INT64`, the others optional
//! `DOUBLE`. Written out here because this small part of the format (<https://parquet.apache.org/docs/file-format/>) needs
//! two hundred lines, and the Parquet crate a minute of compiling (`docs/decisions/0021-writers-of-our-own.md`).

use std::io::Write;

use cytomask_image::Result;
use flate2::Compression;
use flate2::write::GzEncoder;

use crate::{Column, Table, Values, io_failed};

const MAGIC: &[u8; 4] = b"PAR1";
/// Rows of a page; sizes of pages are 32-bit.
const PAGE_ROWS: usize = 1 << 17;

/// Writes `table`; its file metadata holds `notes` as key–value pairs.
///
/// # Errors
/// `Io`.
pub fn write(writer: &mut dyn Write, table: &Table, notes: &[(&str, &str)]) -> Result<()> {
    write_pages(writer, table, notes, PAGE_ROWS)
}

fn write_pages(writer: &mut dyn Write, table: &Table, notes: &[(&str, &str)], page_rows: usize) -> Result<()> {
    writer.write_all(MAGIC).map_err(io_failed)?;
    let mut offset = MAGIC.len() as i64;
    let mut chunks = Vec::new();
    for column in table.columns() {
        let (mut raw_size, mut stored_size) = (0, 0);
        for first in (0..table.len()).step_by(page_rows) {
            let rows = first..(first + page_rows).min(table.len());
            let (header, body, raw) = page(&column.values, rows)?;
            writer.write_all(&header).and_then(|()| writer.write_all(&body)).map_err(io_failed)?;
            raw_size += (header.len() + raw) as i64;
            stored_size += (header.len() + body.len()) as i64;
        }
        chunks.push(Chunk { column, offset, raw_size, stored_size });
        offset += stored_size;
    }
    let footer = footer(table, &chunks, notes);
    writer.write_all(&footer).map_err(io_failed)?;
    writer.write_all(&(footer.len() as u32).to_le_bytes()).map_err(io_failed)?;
    writer.write_all(MAGIC).map_err(io_failed)
}

/// Where the pages of a column lie, and their bytes with headers.
struct Chunk<'a> {
    column: &'a Column,
    offset: i64,
    raw_size: i64,
    stored_size: i64,
}

// Numbers of the format's enums.
const INT32: i64 = 1;
const INT64: i64 = 2;
const DOUBLE: i64 = 5;
const UINT_32: i64 = 13;
const PLAIN: i64 = 0;
const RLE: i64 = 3;
const GZIP: i64 = 2;
const REQUIRED: i64 = 0;
const OPTIONAL: i64 = 1;

impl Values {
    fn physical_type(&self) -> i64 {
        match self {
            Self::U32(_) => INT32,
            Self::I64(_) => INT64,
            Self::F64(_) => DOUBLE,
        }
    }
}

/// A data page: header, compressed body, and the body's size before compression.
fn page(values: &Values, rows: std::ops::Range<usize>) -> Result<(Vec<u8>, Vec<u8>, usize)> {
    let count = rows.len();
    let mut body = Vec::with_capacity(count * 8);
    match values {
        Values::U32(values) => body.extend(values[rows].iter().flat_map(|value| value.to_le_bytes())),
        Values::I64(values) => body.extend(values[rows].iter().flat_map(|value| value.to_le_bytes())),
        Values::F64(values) => {
            let values = &values[rows];
            // Definition levels: a bit for each value, 1 where there is one, as one bit-packed run.
            let mut levels = Vec::new();
            put_varint(&mut levels, (count.div_ceil(8) as u64) << 1 | 1);
            levels.extend(values.chunks(8).map(|eight| {
                eight.iter().enumerate().fold(0_u8, |bits, (at, value)| bits | u8::from(!value.is_nan()) << at)
            }));
            body.extend((levels.len() as u32).to_le_bytes());
            body.extend(levels);
            body.extend(values.iter().filter(|value| !value.is_nan()).flat_map(|value| value.to_le_bytes()));
        }
    }
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(&body).map_err(io_failed)?;
    let stored = encoder.finish().map_err(io_failed)?;
    let mut header = Struct::default();
    // A data page, its sizes, and its own header: values, encoding, encodings of definition and repetition levels.
    header.int(1, 0).int(2, body.len() as i64).int(3, stored.len() as i64);
    header.inner(5, |page| {
        page.int(1, count as i64).int(2, PLAIN).int(3, RLE).int(4, RLE);
    });
    Ok((header.finish(), stored, body.len()))
}

fn footer(table: &Table, chunks: &[Chunk<'_>], notes: &[(&str, &str)]) -> Vec<u8> {
    let mut file = Struct::default();
    file.int(1, 1);
    let mut schema = vec![{
        let mut root = Struct::default();
        root.text(4, "schema").int(5, chunks.len() as i64);
        root.finish()
    }];
    schema.extend(chunks.iter().map(|chunk| {
        let mut element = Struct::default();
        let optional = matches!(chunk.column.values, Values::F64(_));
        element.int(1, chunk.column.values.physical_type()).int(3, if optional { OPTIONAL } else { REQUIRED });
        element.text(4, &chunk.column.name);
        if matches!(chunk.column.values, Values::U32(_)) {
            element.int(6, UINT_32);
        }
        element.finish()
    }));
    file.structs(2, &schema).long(3, table.len() as i64);
    let columns: Vec<Vec<u8>> = chunks
        .iter()
        .map(|chunk| {
            let mut column = Struct::default();
            column.long(2, chunk.offset);
            column.inner(3, |meta| {
                meta.int(1, chunk.column.values.physical_type()).ints(2, &[PLAIN, RLE]);
                meta.texts(3, &[&chunk.column.name]).int(4, GZIP).long(5, table.len() as i64);
                meta.long(6, chunk.raw_size).long(7, chunk.stored_size).long(9, chunk.offset);
            });
            column.finish()
        })
        .collect();
    let mut group = Struct::default();
    group.structs(1, &columns).long(2, chunks.iter().map(|chunk| chunk.raw_size).sum()).long(3, table.len() as i64);
    file.structs(4, &[group.finish()]);
    let pairs: Vec<Vec<u8>> = notes
        .iter()
        .map(|(key, value)| {
            let mut pair = Struct::default();
            pair.text(1, key).text(2, value);
            pair.finish()
        })
        .collect();
    if !pairs.is_empty() {
        file.structs(5, &pairs);
    }
    file.text(6, concat!("cytomask version ", env!("CARGO_PKG_VERSION")));
    file.finish()
}

// Thrift's compact protocol, as far as the metadata needs it.
const T_I32: u8 = 5;
const T_I64: u8 = 6;
const T_BINARY: u8 = 8;
const T_LIST: u8 = 9;
const T_STRUCT: u8 = 12;

/// A structure being written; fields in ascending order of their ids.
#[derive(Default)]
struct Struct {
    bytes: Vec<u8>,
    last_id: u8,
}

impl Struct {
    fn field(&mut self, id: u8, kind: u8) {
        // Ids are close enough for the short form, a difference of 1 to 15.
        self.bytes.push((id - self.last_id) << 4 | kind);
        self.last_id = id;
    }

    fn int(&mut self, id: u8, value: i64) -> &mut Self {
        self.field(id, T_I32);
        put_varint(&mut self.bytes, zigzag(value));
        self
    }

    fn long(&mut self, id: u8, value: i64) -> &mut Self {
        self.field(id, T_I64);
        put_varint(&mut self.bytes, zigzag(value));
        self
    }

    fn text(&mut self, id: u8, text: &str) -> &mut Self {
        self.field(id, T_BINARY);
        put_text(&mut self.bytes, text);
        self
    }

    fn list(&mut self, id: u8, kind: u8, count: usize) {
        self.field(id, T_LIST);
        if count < 15 {
            self.bytes.push((count as u8) << 4 | kind);
        } else {
            self.bytes.push(0xf0 | kind);
            put_varint(&mut self.bytes, count as u64);
        }
    }

    fn ints(&mut self, id: u8, values: &[i64]) -> &mut Self {
        self.list(id, T_I32, values.len());
        values.iter().for_each(|&value| put_varint(&mut self.bytes, zigzag(value)));
        self
    }

    fn texts(&mut self, id: u8, texts: &[&str]) -> &mut Self {
        self.list(id, T_BINARY, texts.len());
        texts.iter().for_each(|text| put_text(&mut self.bytes, text));
        self
    }

    fn structs(&mut self, id: u8, structs: &[Vec<u8>]) -> &mut Self {
        self.list(id, T_STRUCT, structs.len());
        structs.iter().for_each(|inner| self.bytes.extend(inner));
        self
    }

    fn inner(&mut self, id: u8, fill: impl FnOnce(&mut Self)) -> &mut Self {
        self.field(id, T_STRUCT);
        let mut inner = Self::default();
        fill(&mut inner);
        self.bytes.extend(inner.finish());
        self
    }

    fn finish(mut self) -> Vec<u8> {
        self.bytes.push(0);
        self.bytes
    }
}

fn zigzag(value: i64) -> u64 {
    (value << 1 ^ value >> 63) as u64
}

fn put_varint(bytes: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

fn put_text(bytes: &mut Vec<u8>, text: &str) {
    put_varint(bytes, text.len() as u64);
    bytes.extend(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::io::Read;

    use cytomask_image::Labels;

    use super::*;
    use crate::{Objects, measure::measure};

    /// Any value of the compact protocol.
    #[derive(Debug)]
    enum Thrift {
        Int(i64),
        Text(Vec<u8>),
        List(Vec<Thrift>),
        Struct(BTreeMap<u8, Thrift>),
    }

    impl Thrift {
        fn at(&self, id: u8) -> &Thrift {
            let Self::Struct(fields) = self else { panic!("{self:?} is no structure") };
            &fields[&id]
        }
        fn int(&self, id: u8) -> i64 {
            let Self::Int(value) = self.at(id) else { panic!() };
            *value
        }
        fn list(&self, id: u8) -> &[Thrift] {
            let Self::List(values) = self.at(id) else { panic!() };
            values
        }
    }

    fn varint(bytes: &mut &[u8]) -> u64 {
        let (mut value, mut shift) = (0, 0);
        loop {
            let byte = bytes[0];
            *bytes = &bytes[1..];
            value |= u64::from(byte & 0x7f) << shift;
            shift += 7;
            if byte < 0x80 {
                return value;
            }
        }
    }

    fn read(bytes: &mut &[u8], kind: u8) -> Thrift {
        match kind {
            T_I32 | T_I64 => {
                let value = varint(bytes);
                Thrift::Int((value >> 1) as i64 ^ -((value & 1) as i64))
            }
            T_BINARY => {
                let length = varint(bytes) as usize;
                let text = bytes[..length].to_vec();
                *bytes = &bytes[length..];
                Thrift::Text(text)
            }
            T_LIST => {
                let head = bytes[0];
                *bytes = &bytes[1..];
                let count = if head >> 4 == 15 { varint(bytes) } else { u64::from(head >> 4) };
                Thrift::List((0..count).map(|_| read(bytes, head & 15)).collect())
            }
            T_STRUCT => {
                let (mut fields, mut id) = (BTreeMap::new(), 0);
                loop {
                    let head = bytes[0];
                    *bytes = &bytes[1..];
                    if head == 0 {
                        return Thrift::Struct(fields);
                    }
                    id += head >> 4;
                    fields.insert(id, read(bytes, head & 15));
                }
            }
            other => panic!("type {other}"),
        }
    }

    /// Columns by name, missing numbers as NaN.
    fn columns(file: &[u8]) -> BTreeMap<String, Vec<f64>> {
        let end = file.len() - 8;
        assert_eq!((&file[..4], &file[end + 4..]), (&MAGIC[..], &MAGIC[..]));
        let length = u32::from_le_bytes(file[end..end + 4].try_into().unwrap()) as usize;
        let footer = read(&mut &file[end - length..end], T_STRUCT);
        let rows = footer.int(3);
        let group = &footer.list(4)[0];
        let mut found = BTreeMap::new();
        for (column, element) in group.list(1).iter().zip(&footer.list(2)[1..]) {
            let Thrift::Text(name) = element.at(4) else { panic!() };
            let meta = column.at(3);
            let (kind, optional) = (meta.int(1), element.int(3) == OPTIONAL);
            let start = meta.int(9) as usize;
            let mut rest = &file[start..start + meta.int(7) as usize];
            let mut values = Vec::new();
            while !rest.is_empty() {
                let header = read(&mut rest, T_STRUCT);
                let (stored, after) = rest.split_at(header.int(3) as usize);
                rest = after;
                let mut body = Vec::new();
                flate2::read::GzDecoder::new(stored).read_to_end(&mut body).unwrap();
                assert_eq!(body.len() as i64, header.int(2));
                let count = header.at(5).int(1) as usize;
                let mut plain = body.as_slice();
                let mut present = vec![true; count];
                if optional {
                    let levels = u32::from_le_bytes(plain[..4].try_into().unwrap()) as usize;
                    let mut packed = &plain[4..4 + levels];
                    assert_eq!(varint(&mut packed) >> 1, count.div_ceil(8) as u64);
                    present = (0..count).map(|at| packed[at / 8] >> (at % 8) & 1 == 1).collect();
                    plain = &plain[4 + levels..];
                }
                for present in present {
                    let size = if kind == INT32 { 4 } else { 8 };
                    if !present {
                        values.push(f64::NAN);
                        continue;
                    }
                    let (bytes, after) = plain.split_at(size);
                    plain = after;
                    values.push(match kind {
                        INT32 => f64::from(u32::from_le_bytes(bytes.try_into().unwrap())),
                        INT64 => i64::from_le_bytes(bytes.try_into().unwrap()) as f64,
                        _ => f64::from_le_bytes(bytes.try_into().unwrap()),
                    });
                }
                assert!(plain.is_empty());
            }
            assert_eq!(values.len() as i64, rows);
            found.insert(String::from_utf8(name.clone()).unwrap(), values);
        }
        found
    }

    #[test]
    fn the_columns_come_back() {
        let ids: Vec<u32> = (0..97 * 131).map(|at| if at % 3 == 0 { u32::MAX - at / 131 / 5 } else { 0 }).collect();
        let labels = Labels::from_vec([97, 131], ids).unwrap();
        let objects = Objects::new(&labels);
        let scores = (0..objects.len()).map(|index| if index % 3 == 1 { f64::NAN } else { 1.0 / (index + 1) as f64 });
        let known = vec![Column::numbers("score", "Score", scores)];
        let table = Table::new(&objects, &measure(&objects, None).unwrap(), known, &[], Some([0.5, 0.5])).unwrap();
        for page_rows in [PAGE_ROWS, 7] {
            let mut file = Vec::new();
            write_pages(&mut file, &table, &[("image", "a.png")], page_rows).unwrap();
            let columns = columns(&file);
            assert_eq!(columns.len(), table.columns().len());
            for column in table.columns() {
                for (row, found) in columns[&column.name].iter().enumerate() {
                    assert_eq!(
                        column.values.number(row),
                        Some(*found).filter(|value| !value.is_nan()),
                        "{}",
                        column.name
                    );
                }
            }
        }
    }
}
