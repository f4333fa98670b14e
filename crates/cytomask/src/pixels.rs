//! Converted pixels of an image, whole or a rectangle at a time.

use std::borrow::Cow;

use cytomask_image::{Image, Limits, Normalization, Projection, Rect, Rgb, Source};

use crate::{Error, ErrorKind};

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

/// Rows of a band that is looked at for the limits.
const BAND_ROWS: u32 = 256;
/// Images of more pixels are refused: their labels would take more than 16 GiB.
const MAX_PIXELS: u64 = 1 << 32;

/// Pixels of an open file, read and converted when they are asked for.
#[derive(Debug)]
pub struct StoredPixels {
    source: Source,
    time: u32,
    projection: Projection,
    channels: Vec<u32>,
    limits: Limits,
}

impl StoredPixels {
    /// Some channels of one time point. Reads the file once or twice in bands, for the limits of the normalisation.
    ///
    /// # Errors
    /// `Image` when pixels cannot be read or are no numbers, and for an image of more than 2³² pixels.
    pub fn new(
        source: Source,
        time: u32,
        projection: Projection,
        channels: Vec<u32>,
        normalization: Normalization,
    ) -> Result<Self, Error> {
        let [h, w] = source.description().size;
        if u64::from(h) * u64::from(w) > MAX_PIXELS {
            let path = source.path().display();
            let message = format!("{path}: the image is too large: {h} × {w} pixels, the limit is {MAX_PIXELS} pixels");
            return Err(Error::new(ErrorKind::Image, message));
        }
        let mut show = |see: &mut dyn FnMut(&Image) -> cytomask_image::Result<()>| {
            for y0 in (0..h).step_by(BAND_ROWS as usize) {
                let band = Rect { y0, x0: 0, y1: (y0 + BAND_ROWS).min(h), x1: w };
                see(&source.read_image(time, projection, &channels, band)?).map_err(|error| {
                    let place = format!("in rows {y0} to {}", band.y1);
                    cytomask_image::Error::new(error.kind(), place).with_source(error).with_path(source.path())
                })?;
            }
            Ok(())
        };
        let limits = Limits::find(normalization, &mut show)?;
        Ok(Self { source, time, projection, channels, limits })
    }
}

impl Pixels for StoredPixels {
    fn size(&self) -> [u32; 2] {
        self.source.description().size
    }

    fn read(&self, rect: Rect) -> Result<Cow<'_, Rgb>, Error> {
        let part = self.source.read_image(self.time, self.projection, &self.channels, rect)?;
        Ok(Cow::Owned(self.limits.to_rgb(&part)?))
    }
}
