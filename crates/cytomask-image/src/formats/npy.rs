//! NPY arrays, versions 1 to 3. Arrays of objects are pickles and are refused.
//!
//! Axes are guessed from the shape, as every reader of bare arrays must: `[H, W]`; `[H, W, C]` when the last extent is at most 4
//! (colours and channels last, as µSAM and Cellpose take them), else `[Z, H, W]`; `[Z, H, W, C]` when the last extent is at most 4,
//! else `[Z, C, H, W]`.

use crate::formats::bytes::Input;
use crate::formats::pixels::swap_bytes;
use crate::formats::{Opened, Planes, check_not_empty};
use crate::source::{Description, PlaneIndex};
use crate::{Error, ErrorKind, Rect, Result, SampleType};

/// A header is a line of text.
const LONGEST_HEADER: u64 = 1 << 20;

struct Npy {
    input: Input,
    dtype: SampleType,
    big_endian: bool,
    start: u64,
    /// Samples from one index to the next: z, c, y, x.
    strides: [u64; 4],
}

fn damaged(what: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::Format, format!("NPY: damaged header: {what}"))
}

pub(super) fn open(mut input: Input) -> Result<Opened> {
    let head = input.read(0, 10)?;
    let (start, length) = match head[6] {
        1 => (10, u64::from(u16::from_le_bytes([head[8], head[9]]))),
        2 | 3 => {
            let length = input.read(8, 4)?;
            (12, u64::from(u32::from_le_bytes([length[0], length[1], length[2], length[3]])))
        }
        other => return Err(Error::new(ErrorKind::Unsupported, format!("NPY: version {other}"))),
    };
    if length > LONGEST_HEADER {
        return Err(damaged(format!("{length} bytes long")));
    }
    let text = input.read(start, length)?;
    let header = Header::parse(&String::from_utf8_lossy(&text))?;
    let start = start + length;
    let shape = &header.shape;
    // Strides of the stored axes, in samples.
    let mut strides = vec![0_u64; shape.len()];
    let mut step = 1_u64;
    let mut place = |index: usize| {
        strides[index] = step;
        step = step.saturating_mul(shape[index]);
    };
    if header.fortran {
        (0..shape.len()).for_each(&mut place)
    } else {
        (0..shape.len()).rev().for_each(&mut place)
    }
    let needed = step.saturating_mul(header.dtype.bytes() as u64).saturating_add(start);
    if needed > input.length() {
        return Err(crate::formats::bytes::cut_short());
    }
    let last_is_channel = shape.last().is_some_and(|&extent| extent <= 4);
    // Positions of z, c, y, x among the stored axes.
    let (axes, name): ([Option<usize>; 4], &str) = match shape.len() {
        2 => ([None, None, Some(0), Some(1)], "YX"),
        3 if last_is_channel => ([None, Some(2), Some(0), Some(1)], "YXC"),
        3 => ([Some(0), None, Some(1), Some(2)], "ZYX"),
        4 if last_is_channel => ([Some(0), Some(3), Some(1), Some(2)], "ZYXC"),
        4 => ([Some(0), Some(1), Some(2), Some(3)], "ZCYX"),
        other => {
            let message = format!("NPY: expected 2 to 4 axes, found {other}; save it as OME-TIFF or OME-Zarr");
            return Err(Error::new(ErrorKind::Unsupported, message));
        }
    };
    let extent = |axis: Option<usize>| -> Result<u32> {
        let extent = axis.map_or(1, |axis| shape[axis]);
        u32::try_from(extent).map_err(|_| damaged(format!("an axis of {extent}")))
    };
    let size = [extent(axes[2])?, extent(axes[3])?];
    check_not_empty(size)?;
    let (depth, channels) = (extent(axes[0])?, extent(axes[1])?);
    check_not_empty([depth, channels])?;
    let mut notes = Vec::new();
    if shape.len() > 2 {
        notes.push(format!("a bare array of shape {shape:?}: its axes are guessed to be {name}"));
    }
    let description = Description {
        format: "NPY".into(),
        size,
        times: 1,
        depth,
        channels,
        stored_axes: name.into(),
        dtype: header.dtype,
        channel_names: Vec::new(),
        colour: channels == 3 && last_is_channel && header.dtype == SampleType::U8,
        pixel_size_um: None,
        z_step_um: None,
        compression: "none".into(),
        block: size,
        levels: vec![size],
        notes,
    };
    let strides = axes.map(|axis| axis.map_or(0, |axis| strides[axis]));
    Ok((description, Box::new(Npy { input, dtype: header.dtype, big_endian: header.big_endian, start, strides })))
}

impl Planes for Npy {
    fn read(&mut self, _level: usize, at: PlaneIndex, rect: Rect) -> Result<Vec<u8>> {
        let width = self.dtype.bytes() as u64;
        let [z_step, c_step, y_step, x_step] = self.strides;
        let plane = u64::from(at.z) * z_step + u64::from(at.channel) * c_step;
        let [h, w] = rect.size().map(u64::from);
        let mut out = Vec::new();
        if x_step <= 4 {
            // Rows lie in one piece, perhaps with other channels between.
            for y in rect.y0..rect.y1 {
                let first = plane + u64::from(y) * y_step + u64::from(rect.x0) * x_step;
                let line = self.input.read(self.start + first * width, ((w - 1) * x_step + 1) * width)?;
                for sample in line.chunks(x_step as usize * width as usize) {
                    out.extend_from_slice(&sample[..width as usize]);
                }
            }
        } else {
            // Columns lie in one piece.
            out.resize((h * w * width) as usize, 0);
            for x in rect.x0..rect.x1 {
                let first = plane + u64::from(x) * x_step + u64::from(rect.y0) * y_step;
                let line = self.input.read(self.start + first * width, ((h - 1) * y_step + 1) * width)?;
                let column = u64::from(x - rect.x0);
                for (row, sample) in line.chunks((y_step * width) as usize).enumerate() {
                    let to = ((row as u64 * w + column) * width) as usize;
                    out[to..to + width as usize].copy_from_slice(&sample[..width as usize]);
                }
            }
        }
        if self.big_endian {
            swap_bytes(&mut out, width as usize);
        }
        Ok(out)
    }
}

/// The dictionary of a header.
#[derive(Debug, PartialEq, Eq)]
struct Header {
    dtype: SampleType,
    big_endian: bool,
    fortran: bool,
    shape: Vec<u64>,
}

impl Header {
    /// `{'descr': '<u2', 'fortran_order': False, 'shape': (97, 131), }`; numpy writes nothing else.
    fn parse(text: &str) -> Result<Self> {
        let after = |key: &str| -> Result<&str> {
            let quoted = [format!("'{key}'"), format!("\"{key}\"")];
            let found = quoted.iter().find_map(|key| text.split_once(key.as_str()));
            let rest = found.ok_or_else(|| damaged(format!("no {key}")))?.1.trim_start();
            rest.strip_prefix(':').map(str::trim_start).ok_or_else(|| damaged(format!("no value of {key}")))
        };
        let descr = after("descr")?;
        let code = match descr.chars().next() {
            Some(quote @ ('\'' | '"')) => descr[1..].split(quote).next().unwrap_or_default(),
            _ => {
                let message = "NPY: expected an array of numbers, found a structured type";
                return Err(Error::new(ErrorKind::Unsupported, message));
            }
        };
        if code.ends_with('O') {
            let message = "NPY: an array of Python objects (a pickle) is not read; save numbers with numpy.save";
            return Err(Error::new(ErrorKind::Unsupported, message));
        }
        let kind = code.trim_start_matches(['<', '>', '|', '=']);
        let dtype = SampleType::from_code(kind)
            .ok_or_else(|| Error::new(ErrorKind::Unsupported, format!("NPY: samples of type {code:?}")))?;
        let fortran = match after("fortran_order")? {
            rest if rest.starts_with("True") => true,
            rest if rest.starts_with("False") => false,
            _ => return Err(damaged("fortran_order is neither True nor False")),
        };
        let shape = after("shape")?;
        let inside = shape.strip_prefix('(').and_then(|rest| rest.split_once(')')).map(|(inside, _)| inside);
        let inside = inside.ok_or_else(|| damaged("shape is no tuple"))?;
        let shape = inside
            .split(',')
            .map(str::trim)
            .filter(|part| !part.is_empty())
            .map(|part| part.trim_end_matches('L').parse::<u64>().map_err(|_| damaged(format!("shape ({inside})"))))
            .collect::<Result<Vec<u64>>>()?;
        Ok(Self { dtype, big_endian: code.starts_with('>'), fortran, shape })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_understood() {
        let header = Header::parse("{'descr': '>u2', 'fortran_order': True, 'shape': (97, 131), }   \n").unwrap();
        let expected = Header { dtype: SampleType::U16, big_endian: true, fortran: true, shape: vec![97, 131] };
        assert_eq!(header, expected);
        let object = Header::parse("{'descr': '|O', 'fortran_order': False, 'shape': (1,), }").unwrap_err();
        assert_eq!(object.kind(), ErrorKind::Unsupported);
        assert!(object.to_string().contains("pickle"), "{object}");
        assert_eq!(Header::parse("{'descr': '<u2'}").unwrap_err().kind(), ErrorKind::Format);
    }
}
