//! Converted pixels of an image, whole or a rectangle at a time.

use std::borrow::Cow;

use cytomask_image::{Rect, Rgb};

use crate::Error;

/// An image that is ready for a network and read in rectangles, so that a large one need not be in memory.
///
/// All rectangles are converted with the same limits: a tile must not be stretched to its own minimum and maximum, or empty regions
/// become noise and neighbours differ. Several threads read at a time.
pub trait Pixels: Sync {
    /// `[h, w]`.
    fn size(&self) -> [u32; 2];

    /// The part of the image inside `rect`, which lies in the image.
    ///
    /// # Errors
    /// `Image` when it cannot be read or converted.
    fn read(&self, rect: Rect) -> Result<Cow<'_, Rgb>, Error>;
}

impl Pixels for Rgb {
    fn size(&self) -> [u32; 2] {
        self.size
    }

    fn read(&self, rect: Rect) -> Result<Cow<'_, Rgb>, Error> {
        Ok(if rect == Rect::whole(self.size) { Cow::Borrowed(self) } else { Cow::Owned(self.crop(rect)) })
    }
}
