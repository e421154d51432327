//! Credentials for the tests of other modules.

use std::sync::Arc;

use super::{Pin, Secret};

impl Pin {
    /// A pin that no broker handed out.
    pub(crate) fn for_test(user: &str, password: Option<&str>) -> Arc<Self> {
        Arc::new(Self {
            name: "orders-db-app".into(),
            version: "0123456789abcdef".to_owned(),
            user: Some(user.to_owned()),
            password: password.map(|password| Secret::new(password.as_bytes().to_vec())),
            token: None,
        })
    }
}
