use super::*;

fn cell(oid: u32, binary: bool) -> CellType {
    CellType { oid, modifier: -1, binary }
}

fn masked(with: MaskWith, oid: u32, binary: bool, value: &[u8]) -> Option<Vec<u8>> {
    replacement(&with, cell(oid, binary), value).map(Cow::into_owned)
}

#[test]
fn unknown_types_become_null() {
    // hstore and the like have no fixed OID; arrays, xml, ranges, tsvector, records, enums.
    for oid in [90_001, 1009, 142, 3904, 3614, 2249, 1560, 790, 0, u32::MAX, oid::BOOL] {
        assert_eq!(masked(MaskWith::Redact, oid, false, b"secret"), None, "{oid}");
        assert_eq!(masked(MaskWith::KeepDomain, oid, true, b"a@b.c"), None, "{oid}");
        assert_eq!(masked(MaskWith::Constant("x".into()), oid, false, b"secret"), None, "{oid}");
    }
}

#[test]
fn redacts_in_the_width_of_the_binary_type() {
    let widths = [
        (oid::INT2, 2),
        (oid::INT4, 4),
        (oid::INT8, 8),
        (oid::FLOAT4, 4),
        (oid::FLOAT8, 8),
        (oid::NUMERIC, 8),
        (oid::DATE, 4),
        (oid::TIMESTAMPTZ, 8),
        (oid::TIMETZ, 12),
        (oid::INTERVAL, 16),
        (oid::UUID, 16),
        (oid::INET, 8),
        (oid::MACADDR, 6),
        (oid::MACADDR8, 8),
    ];
    for (oid, width) in widths {
        assert_eq!(masked(MaskWith::Redact, oid, true, b"secret").unwrap().len(), width, "{oid}");
    }
    assert_eq!(masked(MaskWith::Redact, oid::JSONB, true, b"\x01{}").unwrap(), b"\x01\"***\"");
    assert_eq!(masked(MaskWith::Redact, oid::JSONB, false, b"{}").unwrap(), b"\"***\"");
    assert_eq!(masked(MaskWith::Redact, oid::BYTEA, false, b"x").unwrap(), br"\x");
    assert_eq!(masked(MaskWith::Redact, oid::TEXT, true, b"secret").unwrap(), b"***");
}

#[test]
fn keeps_the_domain_of_addresses_only() {
    let keep =
        |value: &str| String::from_utf8(masked(MaskWith::KeepDomain, oid::TEXT, false, value.as_bytes()).unwrap()).unwrap();
    assert_eq!(keep("ann@example.com"), "***@example.com");
    assert_eq!(keep("\"a@b\"@example.com"), "***@example.com");
    for value in ["p@ssw0rd", "no address", "@example.com", "ann@", "ann@a..b", "ann@x y.com", "a@b.c; drop", "ann@-x.com"] {
        assert_eq!(keep(value), "***", "{value}");
    }
    assert_eq!(masked(MaskWith::KeepDomain, oid::TEXT, false, b"\xff@x.io").unwrap(), b"***");
    assert_eq!(masked(MaskWith::KeepDomain, oid::INT4, false, b"42").unwrap(), b"0");
}

#[test]
fn keeps_four_characters_of_long_values_only() {
    let keep = |value: &str| String::from_utf8(masked(MaskWith::Last4, oid::TEXT, false, value.as_bytes()).unwrap()).unwrap();
    assert_eq!(keep("4111111111111111"), "***1111");
    assert_eq!(keep("日本語日本語日本語日本語"), "***語日本語");
    assert_eq!(keep("12345678901"), "***");
    assert_eq!(keep("1234"), "***");
}

#[test]
fn constants_are_valid_for_the_type_or_not_used() {
    let constant = |value: &str, oid, binary| masked(MaskWith::Constant(value.into()), oid, binary, b"secret");
    assert_eq!(constant("hidden", oid::TEXT, false).unwrap(), b"hidden");
    assert_eq!(constant("7", oid::INT4, false).unwrap(), b"7");
    assert_eq!(constant("-7", oid::INT2, true).unwrap(), [0xff, 0xf9]);
    assert_eq!(constant("70000", oid::INT2, true), None);
    assert_eq!(constant("hidden", oid::INT4, false), None);
    assert_eq!(constant("1.50", oid::NUMERIC, false).unwrap(), b"1.50");
    assert_eq!(constant("hidden", oid::NUMERIC, false).unwrap(), b"0");
    assert_eq!(constant("hid\"den", oid::JSON, false).unwrap(), br#""hid\"den""#);
    assert_eq!(constant("{\"a\":1}", oid::JSONB, true).unwrap(), b"\x01{\"a\":1}");
    assert_eq!(constant("hi", oid::BYTEA, false).unwrap(), br"\x6869");
    assert_eq!(constant("hidden", oid::UUID, true), None);
    assert_eq!(constant("true", oid::BOOL, true).unwrap(), [1]);
}

#[test]
fn text_is_cut_to_the_columns_width() {
    let cell = |modifier| CellType { oid: oid::VARCHAR, modifier, binary: false };
    assert_eq!(replacement(&MaskWith::Redact, cell(4 + 2), b"ab").unwrap().as_ref(), b"**");
    assert_eq!(replacement(&MaskWith::Redact, cell(4 + 3), b"abc").unwrap().as_ref(), b"***");
    assert_eq!(replacement(&MaskWith::KeepDomain, cell(4 + 9), b"a@x.io").unwrap().as_ref(), b"***@x.io");
    assert_eq!(replacement(&MaskWith::KeepDomain, cell(4 + 7), b"a@x.io").unwrap().as_ref(), b"***");
    assert_eq!(replacement(&MaskWith::Redact, cell(i32::MIN), b"abc").unwrap().as_ref(), b"***");
}

#[test]
fn null_masks_are_null_for_every_type() {
    assert_eq!(masked(MaskWith::Null, oid::TEXT, false, b"secret"), None);
    assert_eq!(masked(MaskWith::Null, oid::INT4, true, b"\0\0\0\x01"), None);
}
