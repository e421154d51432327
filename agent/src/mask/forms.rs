//! The forms of a secret that are looked for as they are. Escapes (JSON, percent) are decoded by the scan instead, because a
//! server may escape any subset of the bytes and no list of variants could hold them all.

use base64::{
    Engine,
    engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD},
};
use zeroize::Zeroizing;

/// One form; wiped on drop.
pub(super) type Form = Zeroizing<Vec<u8>>;

/// Renders the forms of one secret, without duplicates. Below [`ENCODED_BYTES_MIN`] only the value itself.
pub(super) fn of(secret: &[u8]) -> Vec<Form> {
    let mut forms: Vec<Form> = vec![Zeroizing::new(secret.to_vec())];
    if secret.contains(&b' ') {
        // application/x-www-form-urlencoded writes a space as a plus sign.
        let plus = secret.iter().map(|&byte| if byte == b' ' { b'+' } else { byte }).collect();
        forms.push(Zeroizing::new(plus));
    }
    if secret.len() >= ENCODED_BYTES_MIN {
        forms.push(hex(secret, b"0123456789abcdef"));
        forms.push(hex(secret, b"0123456789ABCDEF"));
        for shift in 0..3 {
            forms.push(base64_core(secret, shift, &STANDARD_NO_PAD));
            forms.push(base64_core(secret, shift, &URL_SAFE_NO_PAD));
        }
    }
    forms.sort_by(|a, b| a.as_slice().cmp(b));
    forms.dedup();
    forms
}

/// A secret shorter than this is looked for only as it is: its encodings are so short that they meet innocent digits and words.
const ENCODED_BYTES_MIN: usize = 8;

fn hex(secret: &[u8], digits: &[u8; 16]) -> Form {
    let digit = |nibble: u8| digits.get(usize::from(nibble)).copied().unwrap_or(b'0');
    let mut form = Vec::with_capacity(secret.len() * 2);
    for byte in secret {
        form.extend([digit(byte >> 4), digit(byte & 15)]);
    }
    Zeroizing::new(form)
}

/// The characters of base64 that depend on the secret alone when `shift` bytes (modulo 3) precede it (RFC 4648, section 4).
fn base64_core(secret: &[u8], shift: usize, engine: &impl Engine) -> Form {
    let mut padded = Zeroizing::new(vec![0_u8; shift]);
    padded.extend_from_slice(secret);
    let encoded = Zeroizing::new(engine.encode(&*padded));
    // Six bits a character: the first one that starts at or behind the secret's first bit, and the last that ends within it.
    let first = (shift * 8).div_ceil(6);
    let end = padded.len() * 8 / 6;
    Zeroizing::new(encoded.as_bytes().get(first..end).unwrap_or_default().to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_cores_are_in_every_alignment() {
        let secret = b"s3cr3t-token/+x?";
        for before in 0..6 {
            for after in 0..4 {
                let text: Vec<u8> = [vec![0xff; before].as_slice(), secret, vec![0x7f; after].as_slice()].concat();
                let encoded = STANDARD_NO_PAD.encode(&text);
                assert!(
                    of(secret).iter().any(|form| form.len() >= 10 && memchr::memmem::find(encoded.as_bytes(), form).is_some()),
                    "{before} {after}"
                );
            }
        }
    }

    #[test]
    fn cores_of_eight_bytes_have_ten_characters() {
        for shift in 0..3 {
            assert_eq!(base64_core(b"12345678", shift, &STANDARD_NO_PAD).len(), 10);
        }
    }

    #[test]
    fn short_secrets_have_one_form() {
        assert_eq!(of(b"1234567").len(), 1);
    }
}
