//! The images of a run: in memory as far as a limit allows, read again from disk beyond it.
//!
//! Crops are drawn from all images at random, so that no image is likelier to come next than another and throwing one out for the
//! next would gain nothing: what fits first stays.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use cytomask_image::{Labels, Rgb};
use rand::{Rng, RngExt};

use super::{Sample, median_side};
use crate::{Error, ErrorKind};

/// Reads an image of the store again, by its index and path.
pub type Reader = Box<dyn Fn(usize, &Path) -> Result<Sample, Error> + Send + Sync>;

/// An image and its objects in little memory: 3 bytes a pixel for grey images of at most 65,535 objects.
#[derive(Debug)]
pub struct Packed {
    size: [u32; 2],
    pixels: Pixels,
    ids: Ids,
    /// √area of the median object.
    median_side: Option<f64>,
}

#[derive(Debug)]
enum Pixels {
    /// All three channels are equal.
    Grey(Vec<u8>),
    /// `[H, W, 3]`
    Colour(Vec<u8>),
    /// `[H, W, 3]`; what does not fit bytes, such as NaN, must not vanish in them.
    Exact(Vec<f32>),
}

#[derive(Debug)]
enum Ids {
    Narrow(Vec<u16>),
    Wide(Vec<u32>),
}

impl Packed {
    /// Rounds samples of 0–255 to whole numbers; the ids become `1..=n`.
    pub fn new(sample: &Sample) -> Self {
        let mut labels = sample.labels.clone();
        labels.relabel();
        let samples = &sample.image.samples;
        let fits = samples.iter().all(|value| (0.0..=255.0).contains(value));
        let grey = samples.chunks_exact(3).all(|pixel| pixel[0] == pixel[1] && pixel[1] == pixel[2]);
        let byte = |value: &f32| value.round() as u8;
        let pixels = match (fits, grey) {
            (true, true) => Pixels::Grey(samples.iter().step_by(3).map(byte).collect()),
            (true, false) => Pixels::Colour(samples.iter().map(byte).collect()),
            (false, _) => Pixels::Exact(samples.clone()),
        };
        let median_side = median_side(&labels);
        let ids = match u16::try_from(labels.max_id()) {
            Ok(_) => Ids::Narrow(labels.as_slice().iter().map(|&id| id as u16).collect()),
            Err(_) => Ids::Wide(labels.into_vec()),
        };
        Self { size: sample.image.size, pixels, ids, median_side }
    }

    /// `[h, w]`.
    pub fn size(&self) -> [u32; 2] {
        self.size
    }

    /// √area of the median object, pixels.
    pub fn median_side(&self) -> Option<f64> {
        self.median_side
    }

    /// The three channels at a position, row-major.
    pub(super) fn pixel(&self, at: usize) -> [f32; 3] {
        match &self.pixels {
            Pixels::Grey(bytes) => [f32::from(bytes[at]); 3],
            Pixels::Colour(bytes) => [0, 1, 2].map(|channel| f32::from(bytes[at * 3 + channel])),
            Pixels::Exact(samples) => [0, 1, 2].map(|channel| samples[at * 3 + channel]),
        }
    }

    /// The id at a position, row-major.
    pub(super) fn id(&self, at: usize) -> u32 {
        match &self.ids {
            Ids::Narrow(ids) => u32::from(ids[at]),
            Ids::Wide(ids) => ids[at],
        }
    }

    /// The whole image and its objects.
    pub fn unpack(&self) -> (Rgb, Labels) {
        let pixels = self.size[0] as usize * self.size[1] as usize;
        let mut labels = Labels::zeros(self.size);
        labels.as_mut_slice().iter_mut().enumerate().for_each(|(at, id)| *id = self.id(at));
        (Rgb { size: self.size, samples: (0..pixels).flat_map(|at| self.pixel(at)).collect() }, labels)
    }

    fn bytes(&self) -> u64 {
        let pixels = match &self.pixels {
            Pixels::Grey(bytes) | Pixels::Colour(bytes) => bytes.len(),
            Pixels::Exact(samples) => samples.len() * 4,
        };
        let ids = match &self.ids {
            Ids::Narrow(ids) => ids.len() * 2,
            Ids::Wide(ids) => ids.len() * 4,
        };
        (pixels + ids) as u64
    }
}

#[derive(Debug)]
struct Entry {
    path: PathBuf,
    kept: Option<Arc<Packed>>,
    /// Its share of all draws begins where the entry's before it ends.
    share_end: f64,
}

/// All training images of a run.
pub struct Store {
    entries: Vec<Entry>,
    reader: Option<Reader>,
    limit_bytes: u64,
    bytes: u64,
    /// Total of all shares so far.
    shares: f64,
}

impl Store {
    /// An empty store that keeps images while they take no more than `limit_bytes` and has the others read again by `reader`.
    pub fn new(limit_bytes: u64, reader: Reader) -> Self {
        Self { entries: Vec::new(), reader: Some(reader), limit_bytes, bytes: 0, shares: 0.0 }
    }

    /// Adds an image; `share` says how often it is drawn beside the others.
    pub fn push(&mut self, sample: &Sample, share: f64) {
        let packed = Packed::new(sample);
        let fits = self.reader.is_none() || self.bytes + packed.bytes() <= self.limit_bytes;
        if fits {
            self.bytes += packed.bytes();
        }
        self.shares += share.max(0.0);
        self.entries.push(Entry {
            path: sample.path.clone(),
            kept: fits.then(|| Arc::new(packed)),
            share_end: self.shares,
        });
    }

    /// Sets how often each image is drawn beside the others.
    ///
    /// # Errors
    /// `Data` when there is not one share an image, or none above 0.
    pub fn set_shares(&mut self, shares: &[f64]) -> Result<(), Error> {
        let good = shares.len() == self.entries.len() && shares.iter().all(|share| share.is_finite() && *share >= 0.0);
        if !good || shares.iter().sum::<f64>() <= 0.0 {
            let message = format!("shares of {} images: expected numbers from 0, one above it", self.entries.len());
            return Err(Error::new(ErrorKind::Data, message));
        }
        self.shares = 0.0;
        for (entry, share) in self.entries.iter_mut().zip(shares) {
            self.shares += share;
            entry.share_end = self.shares;
        }
        Ok(())
    }

    /// How many images.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// How many of them lie in memory.
    pub fn kept(&self) -> usize {
        self.entries.iter().filter(|entry| entry.kept.is_some()).count()
    }

    /// The file of an image.
    pub fn path(&self, index: usize) -> &Path {
        &self.entries[index].path
    }

    /// An image, from memory or from disk.
    ///
    /// # Errors
    /// What the reader reports.
    pub fn get(&self, index: usize) -> Result<Arc<Packed>, Error> {
        let entry = &self.entries[index];
        match (&entry.kept, &self.reader) {
            (Some(packed), _) => Ok(Arc::clone(packed)),
            (None, Some(read)) => Ok(Arc::new(Packed::new(&read(index, &entry.path)?))),
            (None, None) => Err(Error::new(ErrorKind::Data, format!("{}: is not in memory", entry.path.display()))),
        }
    }

    /// Draws an image by the shares.
    pub(super) fn draw(&self, rng: &mut impl Rng) -> usize {
        let at = rng.random_range(0.0..1.0) * self.shares;
        self.entries.partition_point(|entry| entry.share_end <= at).min(self.entries.len().saturating_sub(1))
    }
}

/// All in memory, each drawn as often as the others.
impl From<Vec<Sample>> for Store {
    fn from(samples: Vec<Sample>) -> Self {
        let mut store = Self { entries: Vec::new(), reader: None, limit_bytes: u64::MAX, bytes: 0, shares: 0.0 };
        for sample in &samples {
            store.push(sample, 1.0);
        }
        store
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    use super::*;

    fn sample(name: &str, id: u32, colour: [f32; 3]) -> Sample {
        let mut labels = Labels::zeros([97, 131]);
        labels.as_mut_slice()[500..600].fill(id);
        Sample { path: name.into(), image: Rgb { size: [97, 131], samples: colour.repeat(97 * 131) }, labels }
    }

    #[test]
    fn packing_keeps_pixels_and_objects() {
        for colour in [[7.0, 7.0, 7.0], [1.0, 2.0, 250.0], [0.0, 300.0, -1.0], [f32::NAN, 0.0, 0.0]] {
            let packed = Packed::new(&sample("a.png", u32::MAX, colour));
            let (image, labels) = packed.unpack();
            assert_eq!(format!("{:?}", &image.samples[..3]), format!("{colour:?}"));
            assert_eq!((labels.at(500 / 131, 500 % 131), labels.max_id()), (1, 1));
            assert_eq!(packed.median_side(), Some(10.0));
        }
        assert_eq!(Packed::new(&sample("a.png", 3, [9.0; 3])).bytes(), 97 * 131 * 3);
    }

    #[test]
    fn what_does_not_fit_is_read_again() {
        let reader: Reader = Box::new(|index, path| {
            assert_eq!((index, path), (1, Path::new("b.png")));
            Ok(sample("b.png", 1, [2.0; 3]))
        });
        let mut store = Store::new(97 * 131 * 3 + 1, reader);
        store.push(&sample("a.png", 1, [1.0; 3]), 1.0);
        store.push(&sample("b.png", 1, [2.0; 3]), 1.0);
        assert_eq!((store.len(), store.kept()), (2, 1));
        assert_eq!(store.get(0).unwrap().pixel(0), [1.0; 3]);
        assert_eq!(store.get(1).unwrap().pixel(0), [2.0; 3]);
    }

    #[test]
    fn draws_follow_the_shares() {
        let mut store = Store::from(vec![sample("a", 1, [0.0; 3]), sample("b", 1, [0.0; 3]), sample("c", 1, [0.0; 3])]);
        store.set_shares(&[3.0, 0.0, 1.0]).unwrap();
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let mut counts = [0; 3];
        for _ in 0..4000 {
            counts[store.draw(&mut rng)] += 1;
        }
        assert!(counts[1] == 0 && (2850..3150).contains(&counts[0]), "{counts:?}");
        assert!(store.set_shares(&[0.0; 3]).is_err() && store.set_shares(&[1.0]).is_err());
    }
}
