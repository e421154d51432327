//! A value that must not be seen: no Debug, no Display, no Clone, no Serialize; wiped on drop.

use zeroize::Zeroizing;

/// Secret bytes, at most [`SECRET_BYTES_MAX`]. The only way to the value is [`Secret::expose`].
///
/// ```compile_fail
/// let secret = weir::credential::Secret::new(b"x".to_vec());
/// println!("{secret:?}");
/// ```
/// ```compile_fail
/// let secret = weir::credential::Secret::new(b"x".to_vec());
/// println!("{secret}");
/// ```
/// ```compile_fail
/// let secret = weir::credential::Secret::new(b"x".to_vec());
/// let copy = secret.clone();
/// drop((secret, copy));
/// ```
/// ```compile_fail
/// let secret = weir::credential::Secret::new(b"x".to_vec());
/// serde_json::to_string(&secret).unwrap();
/// ```
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    #[must_use]
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// Lends the value. Copies of it are the caller's to wipe.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

/// A secret larger than this is refused when it is read: no password or token is.
pub const SECRET_BYTES_MAX: usize = 64 * 1024;
