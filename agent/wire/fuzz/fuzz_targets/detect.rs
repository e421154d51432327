//! More bytes never change a guess, and the limit always suffices for one.
#![no_main]

use libfuzzer_sys::fuzz_target;
use weir_wire::{DETECT_BYTES_MAX, detect};

fuzz_target!(|input: &[u8]| {
    let mut settled = None;
    for length in 0..=input.len().min(2 * DETECT_BYTES_MAX) {
        let guess = detect(&input[..length]);
        assert!(settled.is_none() || guess == settled);
        assert!(guess.is_some() || length < DETECT_BYTES_MAX);
        settled = guess;
    }
});
