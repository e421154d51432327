use bytes::BytesMut;

use super::*;

const FRONTEND: &[u8] = include_bytes!("../../testdata/session.frontend");
const BACKEND: &[u8] = include_bytes!("../../testdata/session.backend");

/// Every message of a capture: tag and body.
fn messages(mut capture: &[u8]) -> Vec<(u8, &[u8])> {
    let mut messages = Vec::new();
    while let Some(outline) = frame(capture).unwrap() {
        messages.push((outline.tag, outline.body(capture).unwrap()));
        capture = &capture[outline.length..];
    }
    assert!(capture.is_empty());
    messages
}

fn frontend() -> Vec<(u8, &'static [u8])> {
    let (_, length) = first(FRONTEND).unwrap().unwrap();
    messages(&FRONTEND[length..])
}

#[test]
fn reads_a_real_startup_message_at_every_split() {
    let (expected, length) = first(FRONTEND).unwrap().unwrap();
    let First::Startup(startup) = &expected else { panic!("not a startup message") };
    assert_eq!(startup.parameter(b"user").unwrap(), "postgres");
    assert_eq!(startup.parameter(b"database").unwrap(), "postgres");
    for split in 0..length {
        assert_eq!(first(&FRONTEND[..split]), Ok(None), "at {split}");
    }
}

#[test]
fn cuts_the_same_frames_at_every_split() {
    let whole = messages(BACKEND).len();
    for split in 0..BACKEND.len() {
        let mut inbox = BytesMut::from(&BACKEND[..split]);
        let mut count = 0;
        let mut cut = |inbox: &mut BytesMut| {
            while let Some(outline) = frame(inbox).unwrap() {
                if outline.body(inbox).is_none() {
                    break;
                }
                let _ = inbox.split_to(outline.length);
                count += 1;
            }
        };
        cut(&mut inbox);
        inbox.extend_from_slice(&BACKEND[split..]);
        cut(&mut inbox);
        assert_eq!(count, whole, "at {split}");
    }
}

#[test]
fn reads_what_a_real_client_asked() {
    let tags: String = frontend().iter().map(|(tag, _)| char::from(*tag)).collect();
    assert_eq!(tags, "QQQPDBDEECSQQQQQdcQPBESQX");
    for (tag, body) in frontend() {
        match tag {
            b'B' => assert_eq!(bind_names(body), Some((bind(body).unwrap().portal, bind(body).unwrap().statement))),
            b'C' => assert_eq!(target(body), Ok(Target::Statement(b"s1"))),
            b'D' => assert!(target(body).is_ok()),
            b'E' => assert_eq!(execute(body).unwrap().portal, b""),
            b'P' => assert!(parse(body).unwrap().text.starts_with(b"selec")),
            b'Q' => assert!(text(body).is_ok()),
            _ => {}
        }
    }
    let binds: Vec<_> = frontend().into_iter().filter(|(tag, _)| *tag == b'B').map(|(_, body)| bind(body).unwrap()).collect();
    assert_eq!(binds[0], Bind { portal: b"", statement: b"s1", formats: vec![1] });
}

#[test]
fn reads_what_a_real_server_answered() {
    let mut tags = String::new();
    for (tag, body) in messages(BACKEND) {
        tags.push(char::from(tag));
        match tag {
            b'C' => assert!(command_tag(body).is_ok()),
            b'D' => assert!(cells(body).unwrap().all(|cell| cell.is_ok())),
            b'E' | b'N' => assert!(error_fields(body).unwrap().iter().any(|(code, _)| *code == b'C')),
            b'K' => assert_eq!(backend_key(body).unwrap().1.len(), 4),
            b'R' => assert_eq!(authentication(body), Ok(Authentication::Ok)),
            b'S' => assert!(parameter_status(body).is_ok()),
            b'T' => assert!(row_description(body).is_ok()),
            b'Z' => assert_eq!(ready_for_query(body), Ok(TransactionStatus::Idle)),
            _ => {}
        }
    }
    assert!(tags.starts_with('R'));
    for sequence in ["TDDCTDCZ", "1tT2TDsDC3Z", "EZ", "NCZ", "CCAZ", "HddcCZ", "GCZ", "IZ", "CSZ"] {
        assert!(tags.contains(sequence), "{sequence} in {tags}");
    }
}

#[test]
fn reads_the_origin_of_columns_and_the_detail_of_errors() {
    let described = messages(BACKEND).into_iter().find(|(tag, _)| *tag == b'T').map(|(_, body)| row_description(body).unwrap());
    let [id, email] = &described.unwrap()[..] else { panic!("two columns") };
    assert_eq!((&id.name[..], id.attribute, id.type_oid, id.type_size), (&b"id"[..], 1, 23, 4));
    assert_eq!((&email.name[..], email.attribute, email.type_oid, email.type_size), (&b"email"[..], 2, 25, -1));
    assert!(id.table_oid != 0 && id.table_oid == email.table_oid);
    let error = messages(BACKEND).into_iter().find(|(tag, _)| *tag == b'E').map(|(_, body)| error_fields(body).unwrap());
    let error = error.unwrap();
    let field = |code| error.iter().find(|(known, _)| *known == code).map(|(_, value)| *value);
    assert_eq!(field(b'C'), Some(&b"23514"[..]));
    assert_eq!(field(b'n'), Some(&b"users_age_check"[..]));
    assert_eq!(field(b'D'), Some(&b"Failing row contains (3, eve, -1)."[..]));
}

#[test]
fn refuses_every_truncation_of_a_body() {
    for (tag, body) in messages(BACKEND) {
        for end in 0..body.len() {
            let cut = &body[..end];
            let refused = match tag {
                b'C' => command_tag(cut).is_err(),
                b'D' => cells(cut).map_or(true, |mut cells| cells.any(|cell| cell.is_err())),
                b'E' | b'N' => error_fields(cut).is_err(),
                b'K' => backend_key(cut).is_err(),
                b'R' => authentication(cut).is_err(),
                b'S' => parameter_status(cut).is_err(),
                b'T' => row_description(cut).is_err(),
                b'Z' => ready_for_query(cut).is_err(),
                _ => true,
            };
            assert!(refused, "{} cut at {end}", char::from(tag));
        }
    }
    for (tag, body) in frontend() {
        for end in 0..body.len() {
            let cut = &body[..end];
            let refused = match tag {
                b'B' => bind(cut).is_err(),
                b'C' | b'D' => target(cut).is_err(),
                b'E' => execute(cut).is_err(),
                b'P' => parse(cut).is_err(),
                b'Q' => text(cut).is_err(),
                _ => true,
            };
            assert!(refused, "{} cut at {end}", char::from(tag));
        }
    }
}

#[test]
fn reads_a_bind_in_pieces_as_in_one() {
    let body = b"\0s\0\0\x02\0\x01\0\0\0\x03\0\0\0\x03abc\xff\xff\xff\xff\0\0\0\0\0\x02\0\x01\0\0";
    let whole = bind(body).unwrap();
    assert_eq!(whole.formats, [1, 0]);
    let in_pieces = |bytes: &[u8], size: usize| {
        let mut pieces = BindPieces::default();
        bytes.chunks(size).try_for_each(|piece| pieces.take(piece)).and_then(|()| pieces.finish())
    };
    for size in 1..body.len() {
        assert_eq!(in_pieces(&body[3..], size), Ok(whole.formats.clone()), "in pieces of {size}");
    }
    assert!(in_pieces(&[&body[3..], b"\0"].concat(), 5).is_err());
    for end in 3..body.len() - 1 {
        assert!(in_pieces(&body[3..end], 4).is_err(), "cut at {end}");
    }
}

#[test]
fn refuses_lying_lengths() {
    assert!(frame(&[b'Q', 0, 0, 0, 3]).is_err());
    assert!(frame(&[b'Q', 0, 0, 0, 0]).is_err());
    assert!(frame(&[b'Q', 0xff, 0xff, 0xff, 0xff]).is_err());
    assert_eq!(frame(&[b'Q', 0, 0, 0, 4]), Ok(Some(Frame { tag: b'Q', length: 5 })));
    let most = u32::try_from(MESSAGE_BYTES_MAX + 4).unwrap();
    let header = |length: u32| [&b"D"[..], &length.to_be_bytes()].concat();
    assert!(frame(&header(most)).unwrap().is_some());
    assert!(frame(&header(most + 1)).is_err());
}

#[test]
fn takes_the_largest_startup_message_and_not_one_byte_more() {
    let sized = |length: usize| {
        let mut packet = u32::try_from(length).unwrap().to_be_bytes().to_vec();
        packet.extend_from_slice(b"\0\x03\0\0options\0");
        packet.resize(length - 2, b'x');
        packet.extend_from_slice(b"\0\0");
        packet
    };
    assert!(matches!(first(&sized(STARTUP_BYTES_MAX)), Ok(Some((First::Startup(_), STARTUP_BYTES_MAX)))));
    assert!(matches!(first(&sized(STARTUP_BYTES_MAX + 1)), Err(WireError::Limit { .. })));
}

#[test]
fn reads_back_what_it_writes() {
    let cancel = cancel_request(-7, &[1, 2, 3, 4]);
    assert_eq!(first(&cancel).unwrap().unwrap().0, First::Cancel { process: -7, key: vec![1, 2, 3, 4].into() });
    assert_eq!(first(&ssl_request()), Ok(Some((First::Ssl, 8))));
    let startup = startup_message([(&b"user"[..], &b"ann"[..])]);
    assert_eq!(&startup[..], b"\0\0\0\x12\0\x03\0\0user\0ann\0\0");
    let mut out = BytesMut::new();
    error_response(&mut out, b'E', [(b'S', &b"ERROR"[..]), (b'M', b"cut\0here"), (b'D', b"")]);
    assert_eq!(messages(&out), [(b'E', &b"SERROR\0Mcut\0\0"[..])]);
    assert_eq!(tag_rows(b"INSERT 0 5"), Some(5));
    assert_eq!(tag_rows(b"CREATE TABLE"), None);
}

#[test]
fn takes_cancellation_keys_of_every_allowed_length() {
    for (length, taken) in [(3, false), (4, true), (256, true), (257, false)] {
        assert_eq!(first(&cancel_request(1, &vec![7; length])).is_ok(), taken, "{length}");
    }
}

#[test]
fn ends_after_the_first_malformed_cell() {
    let mut cells = cells(&[0, 3, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfe, 0, 0, 0, 0]).unwrap();
    assert_eq!(cells.next(), Some(Ok(None)));
    assert!(cells.next().unwrap().is_err());
    assert_eq!(cells.next(), None);
}
