//! Between lines of pixels and registers of tiles: every fourth pixel of a line belongs to the same place of neighbouring tiles.

use crate::{
    Level,
    winograd::{LANES, SIDE, TILE, TILES},
};

/// Values of a line of pixels under [`TILES`] tiles, up to whole registers.
pub(crate) const LINE: usize = TILES * TILE + LANES;

/// Tiles of a line of places; writes of whole registers may pass [`TILES`].
pub(crate) const DEEP: usize = TILES + LANES;

/// The 6 × 6 inputs of each tile: `[6 · 6, tiles]`.
pub(crate) type Lines = [[f32; DEEP]; SIDE * SIDE];

/// Row `row` of the inputs of `count` tiles, from `lane` on, of a line of pixels that begins at the first of these tiles. What follows
/// these tiles up to a whole register is overwritten.
pub(crate) fn deinterleave(level: Level, line: &[f32; LINE], row: usize, [lane, count]: [usize; 2], lines: &mut Lines) {
    assert!(lane + count <= TILES, "at most {TILES} tiles");
    let Some(lines) = lines[row * SIDE..].first_chunk_mut::<SIDE>() else { unreachable!("six rows") };
    #[cfg(target_arch = "x86_64")]
    if level == Level::Avx512 {
        #[expect(unsafe_code, reason = "loads and stores of registers")]
        // SAFETY: the level was found on this machine; both sides have a register of slack after the last tile.
        return unsafe { x86::deinterleave(line, [lane, count], lines) };
    }
    let _ = level;
    for (x, places) in lines.iter_mut().enumerate() {
        for (place, value) in places[lane..lane + count].iter_mut().zip(line[x..].iter().step_by(TILE)) {
            *place = *value;
        }
    }
}

/// Asks for values that are read soon: rows of other channels lie too far apart for the processor to expect them.
pub(crate) fn prefetch(values: &[f32]) {
    #[cfg(target_arch = "x86_64")]
    for line in values.chunks(LANES) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        #[expect(unsafe_code, reason = "an address")]
        // SAFETY: within a slice; nothing is read.
        unsafe {
            _mm_prefetch::<_MM_HINT_T0>(line.as_ptr().cast());
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = values;
}

/// A line of pixels `[LANES · TILE]` from the four places of each of sixteen tiles.
pub(crate) fn interleave(level: Level, places: &[[f32; LANES]; TILE], line: &mut [f32]) {
    let Some(line) = line.first_chunk_mut::<{ LANES * TILE }>() else { unreachable!("a line of sixteen tiles") };
    #[cfg(target_arch = "x86_64")]
    if level == Level::Avx512 {
        #[expect(unsafe_code, reason = "loads and stores of registers")]
        // SAFETY: the level was found on this machine.
        return unsafe { x86::interleave(places, line) };
    }
    let _ = level;
    for (x, places) in places.iter().enumerate() {
        for (value, place) in line[x..].iter_mut().step_by(TILE).zip(places) {
            *value = *place;
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[expect(unsafe_code, reason = "vector loads and stores through pointers, within arrays of known lengths")]
mod x86 {
    use std::arch::x86_64::*;

    use super::{DEEP, LANES, LINE, SIDE, TILE};

    /// `lane + count` at most `TILES`.
    #[target_feature(enable = "avx512f")]
    pub(super) unsafe fn deinterleave(line: &[f32; LINE], [lane, count]: [usize; 2], lines: &mut [[f32; DEEP]; SIDE]) {
        // Places 0 and 1 of the eight tiles in two registers; places 2 and 3.
        let first = _mm512_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28, 1, 5, 9, 13, 17, 21, 25, 29);
        let second = _mm512_add_epi32(first, _mm512_set1_epi32(2));
        for done in (0..count).step_by(LANES) {
            let from = line.as_ptr().wrapping_add(done * TILE);
            // SAFETY: `done` is at most 32: these 64 values and the two after them lie within the line.
            let (z, after) = unsafe {
                let z: [__m512; 4] = std::array::from_fn(|index| _mm512_loadu_ps(from.add(index * LANES)));
                (z, [_mm512_set1_ps(*from.add(4 * LANES)), _mm512_set1_ps(*from.add(4 * LANES + 1))])
            };
            let low = [_mm512_permutex2var_ps(z[0], first, z[1]), _mm512_permutex2var_ps(z[2], first, z[3])];
            let high = [_mm512_permutex2var_ps(z[0], second, z[1]), _mm512_permutex2var_ps(z[2], second, z[3])];
            let four = [
                _mm512_shuffle_f32x4::<0x44>(low[0], low[1]),
                _mm512_shuffle_f32x4::<0xee>(low[0], low[1]),
                _mm512_shuffle_f32x4::<0x44>(high[0], high[1]),
                _mm512_shuffle_f32x4::<0xee>(high[0], high[1]),
            ];
            // A tile's last two inputs are the first two of the next.
            let next = |index: usize| {
                let (these, after) = (_mm512_castps_si512(four[index]), _mm512_castps_si512(after[index]));
                _mm512_castsi512_ps(_mm512_alignr_epi32::<1>(after, these))
            };
            for (places, line) in [four[0], four[1], four[2], four[3], next(0), next(1)].into_iter().zip(&mut *lines) {
                // SAFETY: lane + count ≤ DEEP − LANES, so the register begun before it ends within the line.
                unsafe { _mm512_storeu_ps(line.as_mut_ptr().add(lane + done), places) };
            }
        }
    }

    #[target_feature(enable = "avx512f")]
    pub(super) unsafe fn interleave(places: &[[f32; LANES]; TILE], line: &mut [f32; LANES * TILE]) {
        let tiles = _mm512_setr_epi32(0, 8, 16, 24, 1, 9, 17, 25, 2, 10, 18, 26, 3, 11, 19, 27);
        let later = _mm512_add_epi32(tiles, _mm512_set1_epi32(4));
        // SAFETY: sixteen values each.
        let p: [__m512; 4] = std::array::from_fn(|index| unsafe { _mm512_loadu_ps(places[index].as_ptr()) });
        let low = [_mm512_shuffle_f32x4::<0x44>(p[0], p[1]), _mm512_shuffle_f32x4::<0x44>(p[2], p[3])];
        let high = [_mm512_shuffle_f32x4::<0xee>(p[0], p[1]), _mm512_shuffle_f32x4::<0xee>(p[2], p[3])];
        let pixels = [
            _mm512_permutex2var_ps(low[0], tiles, low[1]),
            _mm512_permutex2var_ps(low[0], later, low[1]),
            _mm512_permutex2var_ps(high[0], tiles, high[1]),
            _mm512_permutex2var_ps(high[0], later, high[1]),
        ];
        for (index, pixels) in pixels.into_iter().enumerate() {
            // SAFETY: four registers of sixteen fill the line.
            unsafe { _mm512_storeu_ps(line.as_mut_ptr().add(index * LANES), pixels) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pixels_go_to_their_tiles_and_back() {
        let line: [f32; LINE] = std::array::from_fn(|index| index as f32);
        for level in Level::all() {
            for [lane, count] in [[0, 48], [0, 1], [5, 17], [47, 1], [31, 16], [0, 33]] {
                let mut lines = Box::new([[-1.0; DEEP]; SIDE * SIDE]);
                deinterleave(level, &line, 2, [lane, count], &mut lines);
                for tile in 0..count {
                    for x in 0..SIDE {
                        let found = lines[2 * SIDE + x][lane + tile];
                        assert_eq!(found, (tile * TILE + x) as f32, "{level:?}: tile {tile} of {count} at {x}");
                    }
                }
                assert!(lines.iter().all(|line| line[..lane].iter().all(|&place| place == -1.0)), "those before stay");
            }
            let places: [[f32; LANES]; TILE] =
                std::array::from_fn(|x| std::array::from_fn(|tile| (tile * TILE + x) as f32));
            let mut back = [-1.0; LANES * TILE + 1];
            interleave(level, &places, &mut back);
            assert_eq!(back[..LANES * TILE], line[..LANES * TILE], "{level:?}");
            assert_eq!(back[LANES * TILE], -1.0);
        }
    }
}
