//! Which conversation carries which protocol.

use std::sync::Arc;

use super::{Context, outcome::Ending, relay::Relay, sessions::Listed, stream::Stream, web};
use crate::{
    flow::Protocol,
    policy::Permit,
    protocol::{
        Conversation,
        opaque::Opaque,
        postgres::{Postgres, PostgresConfig},
    },
};

/// Carries an admitted session until it ends.
pub(super) async fn carry(context: &Arc<Context>, permit: Permit, listed: &mut Listed, stream: Stream) -> Ending {
    let judge = Arc::new(context.judge.session(permit.clone()));
    let conversation: Box<dyn Conversation> = match permit.flow().protocol {
        Protocol::Http => return web::carry(context, permit, judge, stream).await,
        Protocol::Postgres => Box::new(Postgres::new(PostgresConfig {
            session: permit.flow().session,
            permit: permit.clone(),
            known: Arc::clone(&context.judge.known),
        })),
        Protocol::Tcp => Box::new(Opaque::default()),
    };
    Relay::new(context, permit, judge, listed, conversation, stream).run().await
}
