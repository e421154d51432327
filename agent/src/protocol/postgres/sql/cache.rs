//! Readings of short texts that were seen before: clients repeat themselves.

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    sync::{LazyLock, PoisonError, RwLock},
};

use bytes::Bytes;

use super::Reading;

/// Longer texts are mostly bulk data, which does not repeat.
const TEXT_BYTES_MAX: usize = 4 * 1024;
/// Per shard, for each of two generations.
const ENTRIES_MAX: usize = 64;
const SHARDS: usize = 16;

/// Two generations instead of exact recency: a hit needs only the read lock, and a full young generation becomes the old one.
#[derive(Default)]
struct Shard {
    young: HashMap<Bytes, Reading>,
    old: HashMap<Bytes, Reading>,
}

static CACHE: LazyLock<Cache> = LazyLock::new(Cache::default);

/// Hashed with a random key: clients choose the texts.
#[derive(Default)]
struct Cache {
    keys: RandomState,
    shards: [RwLock<Shard>; SHARDS],
}

impl Cache {
    fn shard(&self, text: &[u8]) -> Option<&RwLock<Shard>> {
        let index = self.keys.hash_one(text) as usize % SHARDS;
        self.shards.get(index)
    }
}

pub(super) fn lookup(text: &[u8]) -> Option<Reading> {
    if text.len() > TEXT_BYTES_MAX {
        return None;
    }
    let shard = CACHE.shard(text)?;
    let aged = {
        let shard = shard.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(reading) = shard.young.get(text) {
            return Some(reading.clone());
        }
        shard.old.get(text).cloned()
    };
    let reading = aged?;
    store(text, &reading);
    Some(reading)
}

pub(super) fn store(text: &[u8], reading: &Reading) {
    if text.len() > TEXT_BYTES_MAX {
        return;
    }
    let Some(shard) = CACHE.shard(text) else { return };
    let mut shard = shard.write().unwrap_or_else(PoisonError::into_inner);
    if shard.young.len() >= ENTRIES_MAX {
        shard.old = std::mem::take(&mut shard.young);
    }
    shard.young.insert(Bytes::copy_from_slice(text), reading.clone());
}
