//! What the tests against golden files share: the file reader and shapes drawn as `parity/synthetic.py` draws them.

use std::path::Path;

use cytomask_image::{Labels, Mask, Rect};
use safetensors::{Dtype, SafeTensors};

use crate::model::Fields;

/// A file under `fixtures/`.
pub(crate) struct Golden {
    bytes: Vec<u8>,
}

impl Golden {
    pub(crate) fn open(name: &str) -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures").join(name);
        Self { bytes: std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display())) }
    }

    fn tensor(&self, name: &str, dtype: Dtype) -> (Vec<usize>, Vec<u8>) {
        let file = SafeTensors::deserialize(&self.bytes).unwrap();
        let tensor = file.tensor(name).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(tensor.dtype(), dtype, "{name}");
        (tensor.shape().to_vec(), tensor.data().to_vec())
    }

    pub(crate) fn f32s(&self, name: &str) -> Vec<f32> {
        let (_, bytes) = self.tensor(name, Dtype::F32);
        bytes.chunks_exact(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap())).collect()
    }

    /// Rows of a two-dimensional tensor, or the numbers of a one-dimensional one as one row each.
    pub(crate) fn i32_rows(&self, name: &str) -> Vec<Vec<i32>> {
        let (shape, bytes) = self.tensor(name, Dtype::I32);
        let numbers: Vec<i32> =
            bytes.chunks_exact(4).map(|bytes| i32::from_le_bytes(bytes.try_into().unwrap())).collect();
        numbers.chunks_exact(shape.get(1).copied().unwrap_or(1)).map(<[i32]>::to_vec).collect()
    }

    pub(crate) fn labels(&self, name: &str) -> Labels {
        let (shape, bytes) = self.tensor(name, Dtype::U8);
        Labels::from_vec([shape[0] as u32, shape[1] as u32], bytes.into_iter().map(u32::from).collect()).unwrap()
    }

    pub(crate) fn bytes(&self, name: &str) -> Vec<u8> {
        self.tensor(name, Dtype::I8).1
    }

    /// Maps stored as `[3, H, W]` bytes; a map's value is the byte divided by 255.
    pub(crate) fn fields(&self, name: &str) -> Fields {
        let (shape, bytes) = self.tensor(name, Dtype::U8);
        let size = [shape[1] as u32, shape[2] as u32];
        let mut maps =
            bytes.chunks_exact(shape[1] * shape[2]).map(|map| map.iter().map(|&b| f32::from(b) / 255.0).collect());
        let mut next = || maps.next().unwrap();
        Fields { size, foreground: next(), center_distance: next(), boundary_distance: next() }
    }
}

/// `[0, y, x, radius, _]` is a disc, `[1, y0, x0, y1, x1]` a half-open rectangle.
pub(crate) fn draw(shape: &[i32], size: [u32; 2]) -> Mask {
    Mask::from_fn(Rect::whole(size), |y, x| {
        let [y, x] = [y as i32, x as i32];
        match *shape {
            [0, cy, cx, radius, _] => (y - cy).pow(2) + (x - cx).pow(2) <= radius * radius,
            [1, y0, x0, y1, x1] => (y0..y1).contains(&y) && (x0..x1).contains(&x),
            _ => panic!("a shape is five numbers: {shape:?}"),
        }
    })
}

/// Shapes as labels `1..=n`, later ones on top.
pub(crate) fn paint(shapes: &[Vec<i32>], size: [u32; 2]) -> Labels {
    let mut labels = Labels::zeros(size);
    for (index, shape) in shapes.iter().enumerate() {
        draw(shape, size).for_each_run(|y, x0, x1| {
            let row = y as usize * size[1] as usize;
            labels.as_mut_slice()[row + x0 as usize..row + x1 as usize].fill(index as u32 + 1);
        });
    }
    labels
}

/// Mean over the objects of `a` of the best intersection over union with an object of `b`.
pub(crate) fn mean_best_iou(a: &Labels, b: &Labels) -> f64 {
    let mask_of = |labels: &Labels, id| {
        let set: Vec<bool> = labels.as_slice().iter().map(|&other| other == id).collect();
        Mask::from_bools(labels.size(), &set)
    };
    let theirs: Vec<Mask> = (1..=b.max_id()).map(|id| mask_of(b, id)).collect();
    let best = |id| theirs.iter().map(|mask| mask.iou(&mask_of(a, id))).fold(0.0, f64::max);
    (1..=a.max_id()).map(best).sum::<f64>() / f64::from(a.max_id().max(1))
}
