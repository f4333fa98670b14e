//! 3-D TIFF files as slices, time point after time point.

use std::path::Path;

use cytomask_image::{PlaneIndex, Rect, Source};

use super::{Planes, checked_size};
use crate::plane::Plane;
use crate::{Error, ErrorKind, Result};

/// A stack of slices of one channel.
pub(crate) struct Stack(Source);

impl Stack {
    /// Opens a file without reading pixels.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let source = Source::open(path)?;
        let held = source.description();
        checked_size(held.size[0] as usize, held.size[1] as usize, 1)?;
        if held.colour {
            return Err(Error::expected(ErrorKind::Shape, "slices", "one channel", "red, green and blue"));
        }
        Ok(Self(source))
    }
}

impl Planes for Stack {
    /// Writers that know no slices call them channels, so everything counts.
    fn len(&self) -> usize {
        let held = self.0.description();
        held.times as usize * held.depth as usize * held.channels as usize
    }

    fn plane(&mut self, index: usize) -> Result<Plane> {
        let held = self.0.description();
        let (depth, channels) = (held.depth as usize, held.channels as usize);
        let at = PlaneIndex {
            time: (index / channels / depth) as u32,
            z: (index / channels % depth) as u32,
            channel: (index % channels) as u32,
        };
        let values = self.0.read_rect(at, Rect::whole(held.size))?;
        Plane::new(held.size, 1, held.dtype, values.into_iter().map(f64::from).collect())
    }
}
