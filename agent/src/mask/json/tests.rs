use super::*;
use rand::{Rng, SeedableRng, rngs::StdRng};

fn keys() -> Arc<JsonKeys> {
    Arc::new(JsonKeys::new(["password", "api_key", "Tøken"]))
}

fn in_pieces(pieces: &[&[u8]]) -> Result<String, JsonError> {
    let mut masker = JsonMasker::new(keys());
    let mut out = BytesMut::new();
    for piece in pieces {
        masker.push(piece, &mut out)?;
    }
    masker.finish()?;
    Ok(String::from_utf8(out.to_vec()).unwrap())
}

fn masked(text: &str) -> String {
    in_pieces(&[text.as_bytes()]).unwrap()
}

const TEXT: &str = " {\"a\" : [1, 2.50e+3 ,{\"PassWord\":\"x\\\"y\\\\\"}] ,\n\"p\\u0061ssword\" : {\"deep\":[\"}\",{\"q\":\"\\\"]\"}]},\"n\":-0.0,\
    \"api_key\":12345.6, \"api_key\" :[ true ] , \"t\\u00F8ken\":null,\"\":\"password\",\"z\":[\"api_key\",\"v\"], \"\\ud83d\\ude00\":1}\n{\"API_KEY\":\"2\"}";
const MASKED: &str = " {\"a\" : [1, 2.50e+3 ,{\"PassWord\":\"***\"}] ,\n\"p\\u0061ssword\" : \"***\",\"n\":-0.0,\
    \"api_key\":null, \"api_key\" :\"***\" , \"t\\u00F8ken\":null,\"\":\"password\",\"z\":[\"api_key\",\"v\"], \"\\ud83d\\ude00\":1}\n{\"API_KEY\":\"***\"}";

#[test]
fn masks_values_and_leaves_every_other_byte() {
    assert_eq!(masked(TEXT), MASKED);
}

#[test]
fn cutting_anywhere_changes_nothing() {
    for cut in 0..=TEXT.len() {
        let (head, tail) = TEXT.as_bytes().split_at(cut);
        assert_eq!(in_pieces(&[head, tail]).unwrap(), MASKED, "cut at {cut}");
    }
    let bytes: Vec<&[u8]> = TEXT.as_bytes().chunks(1).collect();
    assert_eq!(in_pieces(&bytes).unwrap(), MASKED);
}

#[test]
fn random_documents_come_out_the_same_however_they_are_cut_and_hold_no_masked_value() {
    let mut random = StdRng::seed_from_u64(7);
    for _ in 0..500 {
        let mut text = String::new();
        document(&mut random, 0, &mut text);
        let whole = masked(&text);
        assert!(!whole.contains("SECRET"), "{text} -> {whole}");
        let parsed: serde_json::Value = serde_json::from_str(&whole).unwrap();
        drop(parsed);
        let mut pieces = Vec::new();
        let mut rest = text.as_bytes();
        while !rest.is_empty() {
            let (head, tail) = rest.split_at(random.random_range(0..=rest.len().min(7)));
            pieces.push(head);
            rest = tail;
        }
        assert_eq!(in_pieces(&pieces).unwrap(), whole);
    }
}

fn document(random: &mut StdRng, depth: usize, out: &mut String) {
    match random.random_range(0..if depth < 5 { 8 } else { 5 }) {
        0 => out.push_str("\"a\\\"b\\u0022\""),
        1 => out.push_str("-1.5e7"),
        2 => out.push_str("null"),
        3 => out.push_str("true"),
        4 => out.push_str("\"\\\\\""),
        5 => {
            out.push('[');
            for index in 0..random.random_range(0..4) {
                out.push_str(if index > 0 { " ," } else { "" });
                document(random, depth + 1, out);
            }
            out.push(']');
        }
        _ => {
            out.push('{');
            for index in 0..random.random_range(0..4) {
                out.push_str(if index > 0 { "," } else { "\n" });
                if random.random_bool(0.4) {
                    out.push_str(["\"password\":", "\"Api_Key\" : ", "\"pass\\u0077ord\":"][random.random_range(0..3)]);
                    out.push_str(
                        ["\"SECRET\"", "[\"SECRET\",{\"k\":\"SECRET]\"}]", "{\"password\":\"SECRET\\\"\"}"]
                            [random.random_range(0..3)],
                    );
                } else {
                    out.push_str("\"k\":");
                    document(random, depth + 1, out);
                }
            }
            out.push('}');
        }
    }
}

#[test]
fn nesting_is_followed_to_the_limit_and_refused_beyond() {
    let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    assert!(in_pieces(&[nested(NESTING_MAX).as_bytes()]).is_ok());
    assert_eq!(in_pieces(&[nested(NESTING_MAX + 1).as_bytes()]), Err(JsonError::TooDeep));
}

#[test]
fn malformed_text_is_refused() {
    for text in [
        "{\"a\"}",
        "[1,]x",
        "{]",
        "{\"password\":\"x\"",
        "nulx",
        "{\"a\\q\":1}",
        "{'a':1}",
        "}",
        "[1 2]",
        "\"open",
        "\u{feff}x",
        "{\"a\":1,}",
    ] {
        assert!(in_pieces(&[text.as_bytes()]).is_err(), "{text}");
    }
    assert!(in_pieces(&[b"{\0\"\0a\0"]).is_err(), "utf-16");
}

#[test]
fn nothing_of_a_masked_value_passes_when_the_text_breaks_off_within_it() {
    let mut masker = JsonMasker::new(keys());
    let mut out = BytesMut::new();
    assert!(masker.push(b"{\"password\":{SECRET", &mut out).is_err());
    assert_eq!(&out[..], b"{\"password\":\"***\"");
    assert!(masker.push(b"SECRET", &mut out).is_err());
    assert!(masker.finish().is_err());
}

#[test]
fn scalars_sequences_and_marks_pass() {
    for text in ["1", "\"x\"", "null\n", "\u{feff}{}", "\u{1e}{\"a\":1}\n\u{1e}{\"a\":2}\n", "{}{}[]", ""] {
        assert_eq!(masked(text), text);
    }
}

#[test]
fn long_keys_match_nothing_and_need_no_memory() {
    let mut masker = JsonMasker::new(keys());
    let mut out = BytesMut::new();
    masker.push(b"{\"", &mut out).unwrap();
    for _ in 0..100 {
        masker.push(&[b'k'; 4096], &mut out).unwrap();
    }
    masker.push(b"\":\"v\"}", &mut out).unwrap();
    assert!(masker.key.capacity() <= 4 * KEY_BYTES_MAX);
    assert!(out.ends_with(b"\":\"v\"}"));
}

#[test]
fn any_bytes_are_survived() {
    let mut random = StdRng::seed_from_u64(11);
    let alphabet = b"{}[]\",:\\u0n-1 \n\xef\xbb\xbf\xffpassword";
    for _ in 0..5_000 {
        let text: Vec<u8> = (0..random.random_range(0..24)).map(|_| alphabet[random.random_range(0..alphabet.len())]).collect();
        {
            let mut masker = JsonMasker::new(keys());
            let mut out = BytesMut::new();
            let _ = masker.push(&text, &mut out);
            let whole = masker.finish();
            if serde_json::from_slice::<serde_json::Value>(&text).is_ok() {
                assert_eq!(whole, Ok(()), "{}", text.escape_ascii());
            }
        }
    }
}
