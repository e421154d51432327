use super::*;
use rand::{Rng, SeedableRng, rngs::StdRng};

fn in_pieces(dialect: Dialect, text: &[u8], mut size: impl FnMut() -> usize) -> Result<Vec<u8>, JsonError> {
    let keys = Arc::new(JsonKeys::new(["api_key", "password", "t\u{f8}ken"]));
    let mut masker = EmbeddedMasker::new(keys, dialect);
    let mut out = BytesMut::new();
    let mut rest = text;
    while !rest.is_empty() {
        let (head, tail) = rest.split_at(size().min(rest.len()));
        masker.push(head, &mut out)?;
        rest = tail;
    }
    masker.finish(&mut out)?;
    Ok(out.to_vec())
}

fn masked(dialect: Dialect, text: &str) -> String {
    let whole = in_pieces(dialect, text.as_bytes(), || usize::MAX).unwrap();
    assert_eq!(in_pieces(dialect, text.as_bytes(), || 1).unwrap(), whole, "{text}");
    String::from_utf8(whole).unwrap()
}

const CASES: &[(Dialect, &str, &str)] = &[
    (Dialect::Code, r#"data: {"api_key":"K"}"#, r#"data: {"api_key":"***"}"#),
    (Dialect::Code, r#"cb({"API_KEY" : "K\"K\\","n":1});"#, r#"cb({"API_KEY" : "***","n":1});"#),
    (Dialect::Code, r#"{"api_key":123,"n":[1]}"#, r#"{"api_key":null,"n":[1]}"#),
    (Dialect::Code, r#"{"api_key":{"a":["}",{"b":"K"}]},"n":1}"#, r#"{"api_key":"***","n":1}"#),
    (
        Dialect::Code,
        r#"x = {'api_key': 'K', 'don': "t"}; don't; "password": "K""#,
        r#"x = {'api_key': '***', 'don': "t"}; don't; "password": "***""#,
    ),
    (Dialect::Code, r#"JSON.parse("{\"api_key\": \"K\", \"n\": 1}")"#, r#"JSON.parse("{\"api_key\": \"***\", \"n\": 1}")"#),
    (Dialect::Code, r#"f("{\"api_key\": 12", "K2")"#, r#"f("{\"api_key\": null", "K2")"#),
    (Dialect::Code, r#"{"p\u0061ssword":"K"}"#, r#"{"p\u0061ssword":"***"}"#),
    (Dialect::Code, r#"{"api_key":`K k`,"n":1}"#, r#"{"api_key":`***`,"n":1}"#),
    (
        Dialect::Code,
        r#"<a data="{&quot;api_key&quot;:&quot;K&quot;,&quot;n&quot;:1}">"#,
        r#"<a data="{&quot;api_key&quot;:&quot;***&quot;,&quot;n&quot;:1}">"#,
    ),
    (Dialect::Code, r#"<a data="{&quot;api_key&quot;:[1"> K"#, r#"<a data="{&quot;api_key&quot;:&quot;***&quot;"> K"#),
    (Dialect::Code, r#"["api_key","x"], token = "y", 'password'"#, r#"["api_key","x"], token = "y", 'password'"#),
    (Dialect::Code, "the password: is not a key here", "the password: is not a key here"),
    (Dialect::Json, r#"{"msg":"{\"api_key\":\"K\"}","n":1}"#, r#"{"msg":"{\"api_key\":\"***\"}","n":1}"#),
    (Dialect::Json, r#"{"msg":"{\u0022api_key\u0022:\u0022K\u0022}"}"#, r#"{"msg":"{\u0022api_key\u0022:\u0022***\u0022}"}"#),
    (Dialect::Json, r#"{"m":"{\"m\":\"{\\\"api_key\\\":\\\"K\\\"}\"}"}"#, r#"{"m":"{\"m\":\"{\\\"api_key\\\":\\\"***\\\"}\"}"}"#),
    (Dialect::Json, r#"{"m":"{'api_key': 'K'}"}"#, r#"{"m":"{'api_key': '***'}"}"#),
    (Dialect::Json, r#"{"m":"the 'password': ","n":{"x":1}}"#, r#"{"m":"the 'password': ","n":{"x":1}}"#),
    (Dialect::Json, r#"{"m":"{\"api_key\":{\"a\":1","n":2}"#, r#"{"m":"{\"api_key\":\"***\"","n":2}"#),
    (Dialect::Json, r#"{"api_key":"***"}"#, r#"{"api_key":"***"}"#),
    (Dialect::Form, "a=1&api_key=K%20K&b=api_key", "a=1&api_key=***&b=api_key"),
    (Dialect::Form, "api%5Fkey='K'K&api_key=&x=1", "api%5Fkey=***&api_key=&x=1"),
    (Dialect::Form, "p=%7B%22api_key%22%3A%22K%22%7D&x=1", "p=%7B%22api_key%22%3A%22***%22%7D&x=1"),
    (Dialect::Lines, "result: {\"api_key\":\"K\"} fine\n", "result: {\"api_key\":\"***\"} fine\n"),
    (Dialect::Lines, "a: 1\npassword: K, k\nb: 2\n", "a: 1\npassword: ***\nb: 2\n"),
    (Dialect::Lines, "- api_key: |\n    K\n\n    K\n  b: 2\n", "- api_key: ***\n  b: 2\n"),
    (Dialect::Lines, "password:\n- K\n- K\nb: 2", "password: ***\nb: 2"),
    (Dialect::Lines, "password:\nb: 2", "password:\nb: 2"),
    (Dialect::Lines, "12:00 info password=K k\nb", "12:00 info password=***\nb"),
    (Dialect::Parts, "\0\u{1}\"api_key\":\"K\"\0", "\0\u{1}\"api_key\":\"***\"\0"),
];

#[test]
fn masks_the_values_of_keys_wherever_they_stand() {
    for (dialect, text, expected) in CASES {
        assert_eq!(masked(*dialect, text), *expected, "{dialect:?}");
    }
}

#[test]
fn cutting_at_random_changes_nothing() {
    let mut random = StdRng::seed_from_u64(21);
    let pieces = [
        "\"api_key\"",
        "'password'",
        "\\\"api_key\\\"",
        ":",
        " ",
        "\n",
        "\"K\"",
        "{",
        "}",
        "[",
        "]",
        ",",
        "\\",
        "\\u0022",
        "&quot;",
        "&",
        "=",
        "api_key",
        "%22",
        "%3A",
        "-",
        "1",
        "'",
        "\"",
        "\\n",
        "  ",
    ];
    for _ in 0..3_000 {
        let text: String = (0..random.random_range(0..14)).map(|_| pieces[random.random_range(0..pieces.len())]).collect();
        for dialect in [Dialect::Code, Dialect::Form, Dialect::Json, Dialect::Lines, Dialect::Parts] {
            let whole = in_pieces(dialect, text.as_bytes(), || usize::MAX).unwrap();
            let cut = in_pieces(dialect, text.as_bytes(), || random.random_range(1..6)).unwrap();
            assert_eq!(cut.escape_ascii().to_string(), whole.escape_ascii().to_string(), "{dialect:?} {text:?}");
        }
    }
}

#[test]
fn text_in_wide_characters_is_refused() {
    for text in [b"\xff\xfe{\0".as_slice(), b"\xfe\xff\0{", b"{\0\"\0"] {
        for dialect in [Dialect::Code, Dialect::Form, Dialect::Lines] {
            assert!(in_pieces(dialect, text, || 1).is_err());
        }
    }
    assert!(in_pieces(Dialect::Code, b"caf\xe9 \xff", || 1).is_ok());
}

#[test]
fn memory_is_bounded() {
    let mut masker = EmbeddedMasker::new(Arc::new(JsonKeys::new(["api_key"])), Dialect::Lines);
    let mut out = BytesMut::new();
    for _ in 0..20 {
        masker.push(&[b'x'; 4096], &mut out).unwrap();
        masker.push(&[b'\\'; 4096], &mut out).unwrap();
        masker.push(b"\napi_key:\n", &mut out).unwrap();
        masker.push(&[b'\n'; 4096], &mut out).unwrap();
        out.clear();
        assert!(masker.held.len() <= 80 && masker.recent.capacity() <= 8 * RECENT_BYTES_MAX);
    }
}
