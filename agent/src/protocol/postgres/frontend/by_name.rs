//! SQL's own prepared statements: what EXECUTE runs is judged as if it were written in its place.

use std::{
    borrow::Cow,
    sync::{Arc, atomic::AtomicBool},
};

use bytes::Bytes;

use super::super::{
    budget::{excerpt, weigh},
    consequences::Consequences,
    queue::Prepared,
    rows::{Mentions, Target},
    session::Session,
    sql::{ByName, How, Reading},
};
use crate::flow::{Effect, Effects, Statement};

impl Session {
    /// The reading of an EXECUTE with what it runs; as it is, if the name is not known.
    pub(super) fn executed_by_name<'a>(&self, reading: &'a Reading) -> Cow<'a, Reading> {
        let (Some(ByName::Execute { name, how }), Some(around)) = (reading.by_name.as_deref(), &reading.around) else {
            return Cow::Borrowed(reading);
        };
        let Some(prepared) = self.statements.settled(name) else {
            return Cow::Borrowed(reading);
        };
        let mut mentions = self.mentions_of(prepared, &around.mentions);
        match how {
            How::Answers => {}
            How::Explains => mentions.plan_only = true,
            How::Stores => {
                mentions.stored.extend(mentions.reads.clone());
                mentions.stored.stars = true;
            }
        }
        Cow::Owned(Reading {
            statement: Arc::new(merged(&around.statement, &prepared.statement, *how)),
            mentions: Arc::new(mentions),
            ..reading.clone()
        })
    }

    fn mentions_of(&self, prepared: &Prepared, around: &Mentions) -> Mentions {
        let mut mentions = prepared.mentions.as_deref().map_or_else(Mentions::unknown, Mentions::clone);
        mentions.reads.opaque |= self.names_uncertain;
        // What the arguments read may come out wherever the statement has a parameter.
        mentions.targets = mentions.targets.filter(|_| !self.names_uncertain);
        for target in mentions.targets.iter_mut().flatten() {
            if let Target::Value(reads) = target {
                reads.extend(around.reads.clone());
            }
        }
        mentions.reads.extend(around.reads.clone());
        mentions.stored.extend(around.stored.clone());
        mentions.relations.extend(around.relations.iter().cloned());
        mentions
    }

    /// What a message that is only a PREPARE will have prepared.
    pub(super) fn prepared_by_name(&self, reading: &Reading) -> Option<Arc<Prepared>> {
        let Some(ByName::Prepare(_)) = reading.by_name.as_deref() else {
            return None;
        };
        let statement = excerpt(&reading.statement);
        // Over the budget the name stays unknown, and what executes it unreadable.
        let share = self.budget.take(weigh(&statement, &reading.mentions))?;
        Some(Arc::new(Prepared {
            statement,
            share: Some(share),
            by_name: None,
            mentions: Some(Arc::clone(&reading.mentions)),
            sensitive: self.is_sensitive(&reading.mentions),
            consequences: Consequences::of_prepared(reading),
            number: 0,
            batch: 0,
            fresh: AtomicBool::new(false),
        }))
    }

    /// What a Query changes when the server completes it. Nothing behind it is read before: it would be judged by the old names.
    pub(super) fn names_change(
        &mut self,
        by_name: Option<&ByName>,
        prepared: Option<Arc<Prepared>>,
    ) -> (Option<(Bytes, Arc<Prepared>)>, Option<Bytes>) {
        match (by_name, prepared) {
            (Some(ByName::Prepare(name)), Some(prepared)) => {
                self.front.barrier = true;
                (Some((name.clone(), prepared)), None)
            }
            (Some(ByName::Deallocate(name)), _) => {
                self.front.barrier = true;
                (None, Some(name.clone()))
            }
            _ => (None, None),
        }
    }

    /// Notes what a forwarded statement may do to names without a report of the server that says so.
    pub(super) fn runs(&mut self, mentions: Option<&Mentions>, by_name: Option<&ByName>) {
        match by_name {
            Some(ByName::Deallocate(name) | ByName::Prepare(name)) => self.statements.forget(name),
            Some(ByName::Several(names)) => names.iter().for_each(|name| self.statements.forget(name)),
            Some(ByName::Execute { .. }) | None => {}
        }
        if self.named_by_sql && !self.names_uncertain && !self.settings.masks.is_empty() {
            let known = mentions.zip(self.catalog.as_ref());
            self.names_uncertain = known.is_none_or(|(mentions, catalog)| mentions.is_opaque(catalog));
        }
    }
}

/// What the statement that `around` executes does, with what stands around it.
fn merged(around: &Statement, prepared: &Statement, how: How) -> Statement {
    let mut statement = around.clone();
    let (effects, writes) = match how {
        How::Answers | How::Stores => (prepared.effects, true),
        How::Explains => (Effects::of(&[Effect::Read]), false),
    };
    statement.effects.extend(effects);
    for object in &prepared.objects {
        let mut object = object.clone();
        object.write &= writes;
        if !statement.objects.contains(&object) {
            statement.objects.push(object);
        }
    }
    if writes {
        statement.has_where &= prepared.has_where;
        statement.where_tautology |= prepared.where_tautology;
        statement.readable &= prepared.readable;
        statement.unreadable_reason = statement.unreadable_reason.or_else(|| prepared.unreadable_reason.clone());
    }
    statement
}
