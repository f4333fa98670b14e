//! Half-open pixel rectangles.

/// A half-open pixel rectangle: rows `y0..y1`, columns `x0..x1`. Its owner's doc names the frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Rect {
    /// First row.
    pub y0: u32,
    /// First column.
    pub x0: u32,
    /// One past the last row.
    pub y1: u32,
    /// One past the last column.
    pub x1: u32,
}

impl Rect {
    /// The rectangle that covers a whole `[h, w]` frame.
    pub fn whole([h, w]: [u32; 2]) -> Self {
        Self { y0: 0, x0: 0, y1: h, x1: w }
    }

    /// From a corner and an extent in x-first order: `[x0, y0, width, height]`, half-open (COCO's `bbox`).
    pub fn from_xywh([x, y, w, h]: [u32; 4]) -> Self {
        Self { y0: y, x0: x, y1: y + h, x1: x + w }
    }

    /// From half-open corners in x-first order: `[x0, y0, x1, y1]`.
    pub fn from_xyxy([x0, y0, x1, y1]: [u32; 4]) -> Self {
        Self { y0, x0, y1, x1 }
    }

    /// Rows covered.
    pub fn height(&self) -> u32 {
        self.y1.saturating_sub(self.y0)
    }

    /// Columns covered.
    pub fn width(&self) -> u32 {
        self.x1.saturating_sub(self.x0)
    }

    /// `[height, width]`.
    pub fn size(&self) -> [u32; 2] {
        [self.height(), self.width()]
    }

    /// Pixels covered.
    pub fn area(&self) -> u64 {
        u64::from(self.height()) * u64::from(self.width())
    }

    /// Whether no pixel is covered.
    pub fn is_empty(&self) -> bool {
        self.height() == 0 || self.width() == 0
    }

    /// Whether the pixel `(y, x)` is covered.
    pub fn contains(&self, y: u32, x: u32) -> bool {
        (self.y0..self.y1).contains(&y) && (self.x0..self.x1).contains(&x)
    }

    /// The common part; empty (all zero) when there is none.
    pub fn intersection(&self, other: &Self) -> Self {
        let common = Self {
            y0: self.y0.max(other.y0),
            x0: self.x0.max(other.x0),
            y1: self.y1.min(other.y1),
            x1: self.x1.min(other.x1),
        };
        if common.y0 >= common.y1 || common.x0 >= common.x1 { Self::default() } else { common }
    }

    /// The same rectangle moved down by `dy` and right by `dx`.
    pub fn translate(&self, dy: u32, dx: u32) -> Self {
        Self { y0: self.y0 + dy, x0: self.x0 + dx, y1: self.y1 + dy, x1: self.x1 + dx }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_orders_land_on_the_same_rectangle() {
        let rect = Rect { y0: 2, x0: 3, y1: 7, x1: 13 };
        assert_eq!(Rect::from_xywh([3, 2, 10, 5]), rect);
        assert_eq!(Rect::from_xyxy([3, 2, 13, 7]), rect);
        assert_eq!(rect.size(), [5, 10]);
    }

    #[test]
    fn disjoint_rectangles_have_an_empty_intersection() {
        let a = Rect { y0: 0, x0: 0, y1: 4, x1: 4 };
        let b = Rect { y0: 4, x0: 0, y1: 8, x1: 4 };
        assert!(a.intersection(&b).is_empty());
        assert_eq!(a.intersection(&Rect::whole([2, 3])), Rect { y0: 0, x0: 0, y1: 2, x1: 3 });
    }
}
