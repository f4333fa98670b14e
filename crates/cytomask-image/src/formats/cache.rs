//! Decoded blocks kept for the next rectangle.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::Result;

/// Bytes of decoded blocks one open file keeps.
const BUDGET: usize = 128 << 20;

/// Blocks kept at most: looking one up walks over all of them.
const MOST_BLOCKS: usize = 2048;

/// Number of the image (or level) and of the block in it.
type Key = (u64, u64);

/// The blocks used last.
#[derive(Default)]
pub(crate) struct BlockCache {
    blocks: VecDeque<(Key, Arc<Vec<u8>>)>,
    bytes: usize,
}

impl BlockCache {
    /// The block `key`, from the cache or made by `decode`.
    pub(crate) fn get(&mut self, key: Key, decode: impl FnOnce() -> Result<Vec<u8>>) -> Result<Arc<Vec<u8>>> {
        if let Some(position) = self.blocks.iter().rposition(|(found, _)| *found == key)
            && let Some(entry) = self.blocks.remove(position)
        {
            let block = Arc::clone(&entry.1);
            self.blocks.push_back(entry);
            return Ok(block);
        }
        let block = Arc::new(decode()?);
        self.bytes += block.len();
        self.blocks.push_back((key, Arc::clone(&block)));
        while self.bytes > BUDGET || self.blocks.len() > MOST_BLOCKS {
            let Some((_, oldest)) = self.blocks.pop_front() else { break };
            self.bytes -= oldest.len();
        }
        Ok(block)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_blocks_go_first() {
        let mut cache = BlockCache::default();
        let mut decoded = 0;
        let mut get = |cache: &mut BlockCache, number: u64| {
            cache
                .get((0, number), || {
                    decoded += 1;
                    Ok(vec![number as u8; BUDGET / 3])
                })
                .unwrap();
            decoded
        };
        assert_eq!([get(&mut cache, 0), get(&mut cache, 1), get(&mut cache, 2)], [1, 2, 3]);
        assert_eq!(get(&mut cache, 0), 3);
        // Block 1 is now the one not used for longest.
        assert_eq!([get(&mut cache, 3), get(&mut cache, 0), get(&mut cache, 1)], [4, 4, 5]);
    }
}
