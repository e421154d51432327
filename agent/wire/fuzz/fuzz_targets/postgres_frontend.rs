//! Every frontend message is cut within the input and decoded without a panic.
#![no_main]

use libfuzzer_sys::fuzz_target;
use weir_wire::postgres::{BindPieces, bind, bind_names, execute, frame, parse, target, text};

fuzz_target!(|input: &[u8]| {
    let mut rest = input;
    while let Ok(Some(outline)) = frame(rest) {
        let Some(body) = outline.body(rest) else { return };
        match outline.tag {
            b'B' => {
                if let Ok(bound) = bind(body) {
                    assert_eq!(bind_names(body), Some((bound.portal, bound.statement)));
                    let mut pieces = BindPieces::default();
                    let behind_names = &body[bound.portal.len() + bound.statement.len() + 2..];
                    assert!(behind_names.chunks(3).all(|piece| pieces.take(piece).is_ok()));
                    assert_eq!(pieces.finish(), Ok(bound.formats));
                }
            }
            b'C' | b'D' => drop(target(body)),
            b'E' => drop(execute(body)),
            b'P' => drop(parse(body)),
            _ => drop(text(body)),
        }
        rest = &rest[outline.length..];
    }
});
