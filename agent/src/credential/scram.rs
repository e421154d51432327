//! SCRAM-SHA-256, client side (RFC 5802, RFC 7677), with and without channel binding.
