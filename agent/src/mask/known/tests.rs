use super::*;
use base64::{Engine as _, engine::general_purpose};
use bytes::BytesMut;
use rand::{Rng, SeedableRng, rngs::StdRng};

const SECRET: &[u8] = b"s3cr3t/t+ken \"\\q\xc3\xa9\xf0\x9f\x98\x80x";

fn scrubber(secrets: &[&[u8]]) -> Arc<Scrubber> {
    let known = KnownSecrets::default();
    for secret in secrets {
        known.register(secret).unwrap();
    }
    known.scrubber()
}

fn percent(secret: &[u8], which: impl Fn(u8) -> bool, upper: bool) -> Vec<u8> {
    let escape = |byte: &u8| if upper { format!("%{byte:02X}") } else { format!("%{byte:02x}") };
    secret.iter().flat_map(|byte| if which(*byte) { escape(byte).into_bytes() } else { vec![*byte] }).collect()
}

fn json_all(secret: &[u8]) -> Vec<u8> {
    let text = std::str::from_utf8(secret).unwrap();
    text.encode_utf16().flat_map(|unit| format!("\\u{unit:04X}").into_bytes()).collect()
}

fn encodings(secret: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let json = serde_json::to_string(std::str::from_utf8(secret).unwrap()).unwrap();
    let hex: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
    let with = |before: usize| [&vec![b'u'; before], secret, b"!".as_slice()].concat();
    let slashes = json.trim_matches('"').replace('/', "\\/");
    let mut mixed = percent(secret.get(..4).unwrap(), |_| true, true);
    mixed.extend_from_slice(secret.get(4..).unwrap());
    vec![
        ("raw", secret.to_vec()),
        ("json", json.trim_matches('"').as_bytes().to_vec()),
        ("json twice", serde_json::to_string(json.trim_matches('"')).unwrap().trim_matches('"').as_bytes().to_vec()),
        ("json all escaped, twice", json_all(secret).escape_ascii().to_string().into_bytes()),
        ("json with slashes", slashes.into_bytes()),
        ("json all escaped", json_all(secret)),
        ("percent all upper", percent(secret, |_| true, true)),
        ("percent all lower", percent(secret, |_| true, false)),
        ("percent reserved", percent(secret, |byte| !byte.is_ascii_alphanumeric(), true)),
        ("percent mixed", mixed),
        ("hex lower", hex.clone().into_bytes()),
        ("hex upper", hex.to_uppercase().into_bytes()),
        ("base64 0", general_purpose::STANDARD.encode(with(0)).into_bytes()),
        ("base64 1", general_purpose::STANDARD.encode(with(1)).into_bytes()),
        ("base64 2", general_purpose::STANDARD.encode(with(2)).into_bytes()),
        ("base64url 0", general_purpose::URL_SAFE_NO_PAD.encode(with(0)).into_bytes()),
        ("base64url 1", general_purpose::URL_SAFE_NO_PAD.encode(with(1)).into_bytes()),
        ("base64url 2", general_purpose::URL_SAFE_NO_PAD.encode(with(2)).into_bytes()),
    ]
}

fn in_pieces(scrubber: &Arc<Scrubber>, text: &[u8], mut size: impl FnMut() -> usize) -> Vec<u8> {
    let mut stream = scrubber.stream();
    let mut out = BytesMut::new();
    let mut rest = text;
    while !rest.is_empty() {
        let (head, tail) = rest.split_at(size().min(rest.len()));
        stream.push(head, &mut out);
        rest = tail;
    }
    stream.finish(&mut out);
    out.to_vec()
}

#[test]
fn every_encoding_is_found_and_replaced() {
    let scrubber = scrubber(&[SECRET]);
    for (name, encoded) in encodings(SECRET) {
        for around in ["", "x", "padding padding padding "] {
            let text = [around.as_bytes(), &encoded, around.as_bytes()].concat();
            assert!(scrubber.finds(&text), "{name}");
            let clean = scrubber.scrub(&text);
            assert!(memchr::memmem::find(&clean, b"***").is_some(), "{name}");
            assert!(!scrubber.finds(&clean), "{name}");
        }
    }
}

#[test]
fn no_four_bytes_of_a_whole_encoding_are_left() {
    let scrubber = scrubber(&[SECRET]);
    for (name, encoded) in encodings(SECRET).into_iter().filter(|(name, _)| !name.starts_with("base64")) {
        assert_eq!(&*scrubber.scrub(&encoded), b"***", "{name}");
    }
}

#[test]
fn cutting_anywhere_changes_nothing() {
    let scrubber = scrubber(&[SECRET, b"abababab", b"babababa-long-token", b"tiny"]);
    let mut text = b"ababababababab babababa-long-tokenn \\ % \\u %4 tin tiny \\\\u0074iny ".to_vec();
    for (_, encoded) in encodings(SECRET) {
        text.extend_from_slice(&encoded);
        text.extend_from_slice(b"\\");
        text.extend_from_slice(&encoded);
        text.extend_from_slice(b"%2");
    }
    let whole = scrubber.scrub(&text).into_owned();
    for cut in 0..=text.len() {
        let mut sizes = [cut, text.len()].into_iter();
        assert_eq!(in_pieces(&scrubber, &text, || sizes.next().unwrap()), whole, "cut at {cut}");
    }
    assert_eq!(in_pieces(&scrubber, &text, || 1), whole);
    let mut random = StdRng::seed_from_u64(3);
    for _ in 0..300 {
        assert_eq!(in_pieces(&scrubber, &text, || random.random_range(1..40)), whole);
    }
}

/// What the scan must agree with: decode at every position and compare.
fn naive(text: &[u8], secret: &[u8]) -> bool {
    memchr::memmem::find(text, secret).is_some()
}

#[test]
fn the_gate_lets_no_raw_secret_through() {
    let mut random = StdRng::seed_from_u64(5);
    for length in [4_usize, 5, 6, 7, 8, 9, 13, 40] {
        let secret: Vec<u8> = (0..length).map(|_| random.random_range(b'a'..=b'd')).collect();
        let scrubber = scrubber(&[&secret]);
        for _ in 0..1000 {
            let mut text: Vec<u8> = (0..random.random_range(0..60)).map(|_| random.random_range(b'a'..=b'd')).collect();
            if random.random_bool(0.5) {
                let at = random.random_range(0..=text.len());
                text.splice(at..at, secret.iter().copied());
            }
            assert_eq!(scrubber.finds(&text), naive(&text, &secret), "{} in {}", secret.escape_ascii(), text.escape_ascii());
            let streamed = in_pieces(&scrubber, &text, || random.random_range(1..9));
            assert_eq!(streamed, scrubber.scrub(&text).into_owned());
            assert!(!naive(&streamed, &secret));
        }
    }
}

#[test]
fn any_bytes_come_out_the_same_however_they_are_cut() {
    let mut random = StdRng::seed_from_u64(9);
    let scrubber = scrubber(&[b"\\%\\u%25uu", b"aa\\\\aa%%", b"\"\\\"\\\"\\\"\\"]);
    let alphabet = b"\\\\\\%%%u025c\"ad8";
    for _ in 0..5_000 {
        let text: Vec<u8> = (0..random.random_range(0..40)).map(|_| alphabet[random.random_range(0..alphabet.len())]).collect();
        let whole = scrubber.scrub(&text).into_owned();
        assert_eq!(in_pieces(&scrubber, &text, || random.random_range(1..5)), whole, "{}", text.escape_ascii());
    }
}

#[test]
fn overlapping_secrets_are_replaced_together() {
    let scrubber = scrubber(&[b"abcdefgh", b"efghijkl"]);
    assert_eq!(&*scrubber.scrub(b"-abcdefghijkl-abcdefgh"), b"-***-***");
}

#[test]
fn only_a_possible_prefix_is_held_back() {
    let scrubber = scrubber(&[b"token-12345678"]);
    let mut stream = scrubber.stream();
    let mut out = BytesMut::new();
    stream.push(b"data: hello\n\n", &mut out);
    assert_eq!(&out[..], b"data: hello\n\n");
    stream.push(b"data: tok", &mut out);
    assert_eq!(&out[..], b"data: hello\n\ndata: ");
    stream.push(b"yo\n\n", &mut out);
    assert_eq!(&out[..], b"data: hello\n\ndata: tokyo\n\n");
}

#[test]
fn what_is_held_back_is_bounded() {
    let scrubber = scrubber(&[b"aaaaaaaaaaaaaaaa"]);
    let mut stream = scrubber.stream();
    let mut out = BytesMut::new();
    for _ in 0..10_000 {
        stream.push(b"aaaaaaa", &mut out);
        stream.push(b"\\u0061\\u00", &mut out);
        stream.push(b"61", &mut out);
    }
    stream.finish(&mut out);
    assert_eq!(&out[..], b"***");
    assert_eq!(stream.replaced(), 1);
}

#[test]
fn an_empty_registry_costs_and_changes_nothing() {
    let scrubber = KnownSecrets::default().scrubber();
    assert!(scrubber.is_empty());
    assert!(matches!(scrubber.scrub(b"anything"), Cow::Borrowed(b"anything")));
    assert_eq!(in_pieces(&scrubber, b"any\\thing%", || 2), b"any\\thing%");
}

#[test]
fn short_values_are_refused_and_four_bytes_are_found() {
    let known = KnownSecrets::default();
    assert_eq!(known.register(b"abc"), Err(Unmaskable::TooShort));
    assert_eq!(known.register(b""), Err(Unmaskable::TooShort));
    assert_eq!(known.register(b"abcd"), Ok(()));
    assert_eq!(&*known.scrubber().scrub(b"xabcdx ab%63d 61626364"), b"x***x *** 61626364");
    assert_eq!(Unmaskable::TooShort.to_string(), "a credential shorter than 4 bytes cannot be masked");
}

#[test]
fn the_registry_is_full_at_its_limit_and_repeats_are_free() {
    let known = KnownSecrets::default();
    let large = |fill: u8| vec![fill; 200_000];
    let mut taken = 0_u8;
    let refused = loop {
        match known.register(&large(b'0' + taken)) {
            Ok(()) => taken += 1,
            Err(refused) => break refused,
        }
    };
    assert_eq!(refused, Unmaskable::Full);
    assert!(taken >= 2);
    assert_eq!(known.register(&large(b'0')), Ok(()));
    assert!(known.scrubber().finds(&large(b'0')));
}

#[test]
fn nothing_prints_a_secret() {
    let known = KnownSecrets::default();
    known.register(b"very-secret").unwrap();
    let text = format!("{known:?} {:?}", known.scrubber());
    assert!(!text.contains("very"), "{text}");
}
