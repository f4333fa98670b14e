//! What a strategy asks of a network.

use std::sync::Arc;

use cytomask_image::{LogitMap, Rect, Rgb};

/// A point, in pixels of the encoded image; the centre of the top-left pixel is `(0, 0)`, as in SAM.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PointPrompt {
    /// Row.
    pub y: f32,
    /// Column.
    pub x: f32,
    /// Whether the point lies on the object (label 1) or beside it (label 0).
    pub positive: bool,
}

/// A box, in pixels of the encoded image, corners as SAM takes them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BoxPrompt {
    /// Top.
    pub y0: f32,
    /// Left.
    pub x0: f32,
    /// Bottom.
    pub y1: f32,
    /// Right.
    pub x1: f32,
}

impl BoxPrompt {
    /// From x-first corners, `[x0, y0, x1, y1]`.
    pub fn from_xyxy([x0, y0, x1, y1]: [f32; 4]) -> Self {
        Self { y0, x0, y1, x1 }
    }

    /// From the first to the last pixel of a rectangle.
    pub fn from_rect(rect: Rect) -> Self {
        let last = |end: u32| end.saturating_sub(1) as f32;
        Self { y0: rect.y0 as f32, x0: rect.x0 as f32, y1: last(rect.y1), x1: last(rect.x1) }
    }
}

/// What marks one object: points, a box, a mask, or several of them.
#[derive(Clone, Debug, Default)]
pub struct Prompt {
    /// Points; may be empty.
    pub points: Vec<PointPrompt>,
    /// A box.
    pub bounds: Option<BoxPrompt>,
    /// Low-resolution logits of an earlier decoding of the same image (SAM's mask prompt).
    pub mask: Option<Arc<LogitMap>>,
}

impl Prompt {
    /// One positive point.
    pub fn point(y: f32, x: f32) -> Self {
        Self { points: vec![PointPrompt { y, x, positive: true }], ..Self::default() }
    }

    /// A box.
    pub fn bounds(bounds: BoxPrompt) -> Self {
        Self { bounds: Some(bounds), ..Self::default() }
    }
}

/// One mask a network proposes for one prompt.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// Mask logits on the network's grid; above the mask threshold is inside.
    pub logits: LogitMap,
    /// The network's own estimate of the intersection over union with the true object.
    pub predicted_iou: f32,
}

/// A promptable network.
pub trait PromptModel {
    /// Image features, opaque to the strategy and kept where the network left them.
    type Embedding;
    /// What can go wrong in the network.
    type Error: std::error::Error + Send + Sync + 'static;

    /// Encodes one image (or crop of one); prompts and masks of the embedding are in its pixel frame.
    ///
    /// # Errors
    /// Whatever the network reports.
    fn encode(&self, image: &Rgb) -> Result<Self::Embedding, Self::Error>;

    /// Decodes prompts, in order. Inner length 3 with `multimask` (SAM's outputs 1–3), else 1 (output 0).
    ///
    /// # Errors
    /// Whatever the network reports.
    fn decode(
        &self,
        embedding: &Self::Embedding,
        prompts: &[Prompt],
        multimask: bool,
    ) -> Result<Vec<Vec<Candidate>>, Self::Error>;
}

/// Decoder maps of one image in the image frame, each row-major `[H, W]`, values 0–1.
#[derive(Clone, Debug)]
pub struct Fields {
    /// `[h, w]`.
    pub size: [u32; 2],
    /// Foreground probability.
    pub foreground: Vec<f32>,
    /// Distance to the centre: 0 at the centre, 1 far from it and in the background.
    pub center_distance: Vec<f32>,
    /// Distance to the boundary, inverted: 0 at the inner ridge, 1 at the boundary and in the background.
    pub boundary_distance: Vec<f32>,
}

/// A box in which a network sees an object, in the frame of the image.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ProposedBox {
    /// From the object's first to its last pixel.
    pub bounds: BoxPrompt,
    /// The pixel `[y, x]` the network looks from, which lies on the object.
    pub point: [u32; 2],
    /// The intersection over union with the object's true box that the network expects, 0–1.
    pub score: f32,
}

/// A network with an instance decoder.
pub trait FieldModel: PromptModel {
    /// The decoder maps of an encoded image, at image size.
    ///
    /// # Errors
    /// Whatever the network reports.
    fn fields(&self, embedding: &Self::Embedding) -> Result<Fields, Self::Error>;

    /// The boxes of objects that the network itself proposes in an encoded image, many for each object, in any order. `None` for a
    /// network without a box decoder.
    ///
    /// # Errors
    /// Whatever the network reports.
    fn boxes(&self, _embedding: &Self::Embedding) -> Result<Option<Vec<ProposedBox>>, Self::Error> {
        Ok(None)
    }
}
