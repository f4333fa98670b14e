//! One image from the objects of many tiles: owners, duplicates, and objects larger than the halo.
//!
//! A tile is computed with a halo around its inner part ([`Tile`]). It keeps the objects whose anchor, a prompt's point or the
//! centroid, lies in the inner part; their masks reach into the halo. Two tiles may place the anchor of one object a little apart,
//! each on its own side of the seam or each on the other's, so both keep what lies within [`SEAM_MARGIN_PX`] of it, and [`unique`]
//! removes what was found twice. An object whose mask touches the outer border of its tile where the image goes on is cut. Cut
//! pieces of one object are found by their overlap ([`same_objects`]), looked at again in a window around all of them, and only where
//! no window is large enough put together as they are and marked ([`join`]).
//!
//! Nothing depends on the order in which tiles come or on who computed them: everything is sorted by position first.

use cytomask_image::{Mask, Rect, Tile};

use crate::grow;
use crate::ops::nms::{Overlap, ordered_mask_nms};
use crate::ops::paint::{Paint, number_by_position};
use crate::segmentation::{ObjectOrigin, Segmentation};

/// How far on both sides of a seam both tiles keep an object; what lies nearer to it than this has its whole surroundings in both.
pub const SEAM_MARGIN_PX: u32 = 16;
/// A mask that comes this near to the outer border of its tile goes on beyond it: the last row of a mask is often not decoded.
const BORDER_PX: u32 = 2;
/// Two objects of different tiles that overlap by more are one.
const DUPLICATE_OVERLAP: f32 = 0.5;
/// Times the window around cut pieces grows before it is given up.
const WINDOWS: u32 = 3;

/// One object as a tile found it, in the frame of the whole image.
#[derive(Clone, Debug)]
pub struct Found {
    /// Its pixels; those beyond the tile's outer border are missing.
    pub mask: Mask,
    /// The same grown into what surrounds it, if the strategy grows objects; painted without what it would take from other masks.
    pub grown: Option<Mask>,
    /// What is known of it.
    pub origin: ObjectOrigin,
    /// `[y, x]` that decides which tile it belongs to.
    pub anchor: [u32; 2],
    /// Which of the given prompts it answers; 0 where there are none.
    pub prompt: usize,
    /// The tile that found it.
    pub tile: Tile,
}

impl Found {
    /// Whether it goes on beyond what its tile saw, in an image of `size`.
    pub fn is_cut(&self, size: [u32; 2]) -> bool {
        is_cut(&self.mask.rect(), &self.tile.outer, size)
    }

    /// Whether its anchor lies in the inner part of its tile.
    fn is_owned(&self) -> bool {
        self.tile.inner.contains(self.anchor[0], self.anchor[1])
    }

    /// A total order of the objects of an image, whatever tiles they come from.
    fn position(&self) -> ([u32; 2], u64, [u32; 4]) {
        let outer = self.tile.outer;
        (self.anchor, self.mask.area(), [outer.y0, outer.x0, outer.y1, outer.x1])
    }
}

/// Whether a tight box inside `outer` touches its border anywhere but at the border of the image.
pub fn is_cut(rect: &Rect, outer: &Rect, size: [u32; 2]) -> bool {
    !rect.is_empty() && cut_sides(rect, outer, size) > 0
}

/// On how many sides.
pub(crate) fn cut_sides(rect: &Rect, outer: &Rect, [h, w]: [u32; 2]) -> usize {
    let sides = [
        outer.y0 > 0 && rect.y0 < outer.y0 + BORDER_PX,
        outer.x0 > 0 && rect.x0 < outer.x0 + BORDER_PX,
        outer.y1 < h && rect.y1 + BORDER_PX > outer.y1,
        outer.x1 < w && rect.x1 + BORDER_PX > outer.x1,
    ];
    sides.iter().filter(|&&cut| cut).count()
}

/// Whether a tile keeps an object with this anchor: in its inner part, or near it inside the halo.
pub fn keeps(tile: &Tile, [y, x]: [u32; 2]) -> bool {
    let Rect { y0, x0, y1, x1 } = tile.inner;
    // Never more than half the halo: beyond that surroundings are missing.
    let margin = |inner: u32, outer: u32| SEAM_MARGIN_PX.min(inner.abs_diff(outer) / 2);
    let near = Rect {
        y0: y0 - margin(y0, tile.outer.y0),
        x0: x0 - margin(x0, tile.outer.x0),
        y1: y1 + margin(y1, tile.outer.y1),
        x1: x1 + margin(x1, tile.outer.x1),
    };
    near.contains(y, x)
}

/// Removes what several tiles found. Of two objects of different tiles that overlap by more than half, in the measure given, the one
/// stays that is not cut, then the one whose tile owns its anchor, then the one of the higher score. Two cut pieces both stay.
///
/// The rest comes back sorted by position.
pub fn unique(mut found: Vec<Found>, overlap: Overlap, size: [u32; 2]) -> Vec<Found> {
    found.retain(|object| !object.mask.is_empty());
    let rank = |object: &Found| (object.is_cut(size), !object.is_owned());
    found.sort_by(|a, b| {
        rank(a).cmp(&rank(b)).then(b.origin.score.total_cmp(&a.origin.score)).then(a.position().cmp(&b.position()))
    });
    let masks: Vec<&Mask> = found.iter().map(|object| &object.mask).collect();
    let cut: Vec<bool> = found.iter().map(|object| object.is_cut(size)).collect();
    let kept = ordered_mask_nms(&masks, DUPLICATE_OVERLAP, overlap, |earlier, later| {
        found[earlier].tile != found[later].tile && !(cut[earlier] && cut[later])
    });
    let mut found: Vec<Option<Found>> = found.into_iter().map(Some).collect();
    let mut kept: Vec<Found> = kept.into_iter().filter_map(|index| found[index].take()).collect();
    kept.sort_by_key(Found::position);
    kept
}

/// Groups of pieces that are one object: pieces of different tiles that agree, by more than half of the smaller, on the pixels both
/// tiles saw. With given prompts, the answers to one prompt. Indices, each group and all of them ascending.
pub fn same_objects(pieces: &[Found]) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..pieces.len()).collect();
    order.sort_by_key(|&index| pieces[index].mask.rect().y0);
    let mut group_of: Vec<usize> = (0..pieces.len()).collect();
    for (at, &first) in order.iter().enumerate() {
        for &second in &order[at + 1..] {
            let (a, b) = (&pieces[first], &pieces[second]);
            if b.mask.rect().y0 >= a.mask.rect().y1 {
                break;
            }
            let (one, other) = (root(&group_of, first), root(&group_of, second));
            if one != other && a.tile != b.tile && agree(a, b) {
                // The smaller index stands for the group, so that it does not matter who meets whom first.
                group_of[one.max(other)] = one.min(other);
            }
        }
    }
    let mut groups: Vec<Vec<usize>> = vec![Vec::new(); pieces.len()];
    for index in 0..pieces.len() {
        groups[root(&group_of, index)].push(index);
    }
    groups.retain(|group| !group.is_empty());
    groups
}

fn root(group_of: &[usize], mut index: usize) -> usize {
    while group_of[index] != index {
        index = group_of[index];
    }
    index
}

fn agree(a: &Found, b: &Found) -> bool {
    let seen_by_both = a.tile.outer.intersection(&b.tile.outer);
    let least = a.mask.area_within(&seen_by_both).min(b.mask.area_within(&seen_by_both));
    least > 0 && a.mask.intersection_area(&b.mask) * 2 > least
}

/// The pieces as one object, marked as cut.
fn put_together(pieces: &[&Found]) -> Found {
    let best = pieces.iter().copied().reduce(|a, b| if b.origin.score > a.origin.score { b } else { a });
    let mut whole = best.cloned().unwrap_or_else(|| unreachable!("a group has pieces"));
    if pieces.iter().any(|piece| piece.grown.is_some()) {
        let all = pieces.iter().map(|piece| piece.grown.as_ref().unwrap_or(&piece.mask));
        whole.grown = Some(all.fold(Mask::default(), |both, grown| both.union(grown)));
    }
    for piece in pieces {
        whole.mask = whole.mask.union(&piece.mask);
    }
    whole.origin.cut = true;
    whole
}

/// Paints objects in the frame of an image of `size`, as one strategy paints its masks.
pub(crate) fn paint_found(paint: &Paint, size: [u32; 2], found: &[Found]) -> Segmentation {
    let masks: Vec<_> = found.iter().map(|object| (&object.mask, object.grown.as_ref())).collect();
    let masks = grow::settled(size, &masks);
    let mut painted = paint.paint(size, &masks.iter().map(AsRef::as_ref).collect::<Vec<&Mask>>());
    number_by_position(&mut painted.labels, &mut painted.mask_of_object);
    Segmentation::from_labels(painted.labels, |id| found[painted.mask_of_object[id as usize - 1]].origin)
}

/// How objects of tiles become those of the image.
#[derive(Clone, Copy, Debug)]
pub struct Join {
    /// `[h, w]` of the image.
    pub size: [u32; 2],
    /// The tiles' halo, which windows around cut objects have too.
    pub halo: [u32; 2],
    /// Longest side of a window.
    pub max_window: u32,
    /// How duplicates are told; `None` where every object answers a prompt of its own.
    pub overlap: Option<Overlap>,
}

/// Segments a window around a cut object; the prompts are those its pieces answer.
pub type LookAgain<'a, E> = dyn FnMut(&Tile, &[usize]) -> Result<Vec<Found>, E> + 'a;

/// Joins what all tiles found, in any order.
///
/// `look_again` is asked in the order of the objects' positions. Objects that stay larger than every window are put together from their pieces and marked.
///
/// # Errors
/// What `look_again` reports.
pub fn join<E>(found: Vec<Found>, settings: &Join, look_again: &mut LookAgain<'_, E>) -> Result<Vec<Found>, E> {
    let size = settings.size;
    let once = |found: Vec<Found>| match settings.overlap {
        Some(overlap) => unique(found, overlap, size),
        None => {
            let mut found = found;
            found.sort_by_key(|object| (object.prompt, object.position()));
            found
        }
    };
    let (cut, mut whole): (Vec<Found>, Vec<Found>) = once(found).into_iter().partition(|object| object.is_cut(size));
    if cut.is_empty() {
        return Ok(whole);
    }
    for group in same_objects(&cut) {
        let pieces: Vec<&Found> = group.iter().map(|&index| &cut[index]).collect();
        whole.extend(complete(&pieces, settings, look_again)?);
    }
    Ok(once(whole))
}

/// The object that cut pieces belong to, as a window shows it, or the pieces put together.
fn complete<E>(pieces: &[&Found], settings: &Join, look_again: &mut LookAgain<'_, E>) -> Result<Vec<Found>, E> {
    let together = put_together(pieces);
    let inner = together.mask.rect();
    let mut prompts: Vec<usize> = pieces.iter().map(|piece| piece.prompt).collect();
    prompts.sort_unstable();
    prompts.dedup();
    for attempt in 0..WINDOWS {
        let grown = |axis: usize, extent: u32| ((extent / 2) << attempt) + settings.halo[axis];
        let (dy, dx) = (grown(0, inner.height()), grown(1, inner.width()));
        let outer = Rect {
            y0: inner.y0.saturating_sub(dy),
            x0: inner.x0.saturating_sub(dx),
            y1: inner.y1.saturating_add(dy).min(settings.size[0]),
            x1: inner.x1.saturating_add(dx).min(settings.size[1]),
        };
        if outer.height().max(outer.width()) > settings.max_window {
            break;
        }
        let window = Tile { outer, inner };
        let mut answers = look_again(&window, &prompts)?;
        // Of what else the window shows the tiles have whole views.
        answers.retain(|answer| {
            let least = answer.mask.area().min(together.mask.area());
            answer.mask.intersection_area(&together.mask) * 2 > least
        });
        if !answers.is_empty() && !answers.iter().any(|answer| answer.is_cut(settings.size)) {
            return Ok(answers);
        }
    }
    // Not cut by its tile any more: what is left of it stands for itself.
    let tile = Tile { outer: Rect::whole(settings.size), inner: Rect::whole(settings.size) };
    Ok(vec![Found { tile, ..together }])
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    const SIZE: [u32; 2] = [97, 131];

    fn found(rect: Rect, tile: Tile, score: f32) -> Found {
        let anchor = [(rect.y0 + rect.y1) / 2, (rect.x0 + rect.x1) / 2];
        let origin = ObjectOrigin { score, ..ObjectOrigin::default() };
        Found { mask: Mask::from_fn(rect, |_, _| true), grown: None, origin, anchor, prompt: 0, tile }
    }

    /// Two tiles side by side with their seam at column 64 and a halo of 16.
    fn tiles() -> [Tile; 2] {
        let both = cytomask_image::tiles([97, 131], [97, 64], [16, 16]);
        [both[0], both[1]]
    }

    fn rect(y0: u32, x0: u32, y1: u32, x1: u32) -> Rect {
        Rect { y0, x0, y1, x1 }
    }

    #[test]
    fn tiles_keep_what_lies_near_their_inner_part() {
        let [left, right] = tiles();
        // Half of the halo, which is less than the margin.
        assert!(keeps(&left, [3, 71]) && !keeps(&left, [3, 72]));
        assert!(keeps(&right, [3, 56]) && !keeps(&right, [3, 55]));
        assert!(keeps(&left, [96, 0]), "no halo beyond the image");
    }

    #[test]
    fn cut_is_what_touches_the_tile_where_the_image_goes_on() {
        let [left, _] = tiles();
        assert!(found(rect(10, 70, 20, 80), left, 1.0).is_cut(SIZE));
        assert!(found(rect(10, 70, 20, 79), left, 1.0).is_cut(SIZE), "the last column may be missing");
        assert!(!found(rect(10, 70, 20, 78), left, 1.0).is_cut(SIZE));
        assert!(!found(rect(0, 0, 97, 10), left, 1.0).is_cut(SIZE), "the image ends there");
    }

    #[test]
    fn of_two_views_of_an_object_one_stays() {
        let [left, right] = tiles();
        let views = [
            found(rect(10, 59, 20, 70), left, 0.9), // its anchor is the right tile's
            found(rect(10, 60, 20, 70), right, 0.8),
            found(rect(40, 60, 50, 80), left, 0.9), // cut
            found(rect(40, 60, 50, 84), right, 0.1),
            found(rect(70, 60, 80, 68), left, 0.5),
            found(rect(70, 60, 80, 68), left, 0.4), // same tile: not a view of the same
        ];
        for turn in 0..views.len() {
            let mut given = views.to_vec();
            given.rotate_left(turn);
            let kept = unique(given, Overlap::IntersectionOverMinimum, SIZE);
            let mut scores: Vec<f32> = kept.iter().map(|object| object.origin.score).collect();
            scores.sort_by(f32::total_cmp);
            // Of the first pair the owner's, of the second the one that is whole, of the third both.
            assert_eq!(scores, [0.1, 0.4, 0.5, 0.8], "turned by {turn}");
        }
    }

    #[test]
    fn pieces_of_an_object_are_put_together_where_no_window_shows_it() {
        let [left, right] = tiles();
        let pieces = vec![found(rect(10, 30, 20, 80), left, 0.9), found(rect(10, 48, 20, 110), right, 0.8)];
        let settings =
            Join { size: SIZE, halo: [16, 16], max_window: 20, overlap: Some(Overlap::IntersectionOverMinimum) };
        let refuse =
            &mut |_: &Tile, _: &[usize]| -> Result<Vec<Found>, Infallible> { panic!("no window is that small") };
        let Ok(joined) = join(pieces.clone(), &settings, refuse);
        assert_eq!(joined.len(), 1);
        assert_eq!(joined[0].mask, Mask::from_fn(rect(10, 30, 20, 110), |_, _| true));
        assert!(joined[0].origin.cut && joined[0].grown.is_none());

        let wider = Mask::from_fn(rect(9, 29, 21, 80), |_, _| true);
        let mut grown = pieces.clone();
        grown[0].grown = Some(wider.clone());
        let Ok(joined) = join(grown, &settings, refuse);
        assert_eq!(joined[0].grown, Some(wider.union(&pieces[1].mask)), "a piece that did not grow as it is");

        // A large enough window shows it whole.
        let settings = Join { max_window: 200, ..settings };
        let mut windows = Vec::new();
        let Ok(joined) = join(pieces, &settings, &mut |window, _| {
            windows.push(window.outer);
            Ok::<_, Infallible>(vec![
                found(rect(10, 30, 20, 112).intersection(&window.outer), *window, 0.7),
                found(rect(50, 30, 60, 40), *window, 0.7),
            ])
        });
        assert_eq!(joined.len(), 1);
        assert_eq!((joined[0].mask.rect().x1, joined[0].origin.cut), (112, false));
        assert_eq!(windows, [rect(0, 0, 41, 131)]);
    }
}
