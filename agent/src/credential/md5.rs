//! PostgreSQL's md5 password response: `md5(md5(password + user) + salt)`, in hexadecimal. Old and weak; servers still ask for it.

use ::md5::{Digest, Md5};
use zeroize::Zeroizing;

use super::Secret;

/// The response, with its `md5` prefix.
#[must_use]
pub fn md5_response(user: &str, password: &Secret, salt: [u8; 4]) -> Zeroizing<String> {
    let inner = hexadecimal(Md5::new().chain_update(password.expose()).chain_update(user));
    let outer = hexadecimal(Md5::new().chain_update(inner.as_bytes()).chain_update(salt));
    Zeroizing::new(format!("md5{}", *outer))
}

fn hexadecimal(digest: Md5) -> Zeroizing<String> {
    let digest = Zeroizing::new(<[u8; 16]>::from(digest.finalize()));
    Zeroizing::new(format!("{:032x}", u128::from_be_bytes(*digest)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_as_libpq_does() {
        // echo -n "$(echo -n 'secretann' | md5sum | cut -c-32)"$'\x01\x02\x03\x04' | md5sum
        let response = md5_response("ann", &Secret::new(b"secret".to_vec()), [1, 2, 3, 4]);
        assert_eq!(response.as_str(), "md59009ce60b9ca97f1e752376843d1309e");
    }
}
