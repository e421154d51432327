//! Every backend message is cut within the input and decoded without a panic; what is decoded is encoded to the same again.
#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use weir_wire::postgres::{
    authentication, backend_key, cells, command_tag, error_fields, error_response, frame, parameter_status, ready_for_query,
    row_description, tag_rows,
};

fuzz_target!(|input: &[u8]| {
    let mut rest = input;
    while let Ok(Some(outline)) = frame(rest) {
        let Some(body) = outline.body(rest) else { return };
        match outline.tag {
            b'C' => drop(command_tag(body).map(tag_rows)),
            b'D' => {
                if let Ok(row) = cells(body) {
                    let stated = usize::from(row.left());
                    assert!(row.take_while(Result::is_ok).count() <= stated);
                }
            }
            b'E' | b'N' => errors(outline.tag, body),
            b'K' => drop(backend_key(body)),
            b'R' => drop(authentication(body)),
            b'S' => drop(parameter_status(body)),
            b'T' => drop(row_description(body)),
            _ => drop(ready_for_query(body)),
        }
        rest = &rest[outline.length..];
    }
});

fn errors(tag: u8, body: &[u8]) {
    let Ok(fields) = error_fields(body) else { return };
    if fields.iter().any(|(_, value)| value.is_empty()) {
        return;
    }
    let mut again = BytesMut::new();
    error_response(&mut again, tag, fields);
    assert_eq!(&again[5..], body);
}
