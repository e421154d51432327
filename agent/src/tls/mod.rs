//! Both legs' TLS: leaves from weir's own authority towards the workload, verified connections towards the server.

mod authority;
mod originate;

pub use authority::{Authority, AuthorityError};
pub use originate::{OriginateError, Originator, check_ca};
