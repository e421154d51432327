//! A first packet is read whole or not at all, and never longer than the inbox.
#![no_main]

use libfuzzer_sys::fuzz_target;
use weir_wire::postgres::{First, first, looks_like};

fuzz_target!(|input: &[u8]| {
    let Ok(Some((packet, length))) = first(input) else { return };
    assert!((8..=input.len()).contains(&length));
    assert!(matches!(packet, First::Unsupported { .. }) || looks_like(input) == Some(true));
    assert_eq!(first(&input[..length]), Ok(Some((packet, length))));
    assert_eq!(first(&input[..length - 1]), Ok(None));
});
