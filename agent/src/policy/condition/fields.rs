//! What conditions can ask: the fields that exist, their types, and the closed vocabularies.

use super::About;
use crate::flow::ObjectKind;

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Type {
    Bool,
    Effect,
    Effects,
    Headers,
    Int,
    Kind,
    List(&'static Type),
    Object,
    Objects,
    Text,
}

macro_rules! fields {
    ($($root:literal $(about $about:ident)? { $($name:literal: $kind:expr => $variant:ident),+ $(,)? })+) => {
        #[derive(Clone, Copy, Debug, Eq, PartialEq)]
        pub(super) enum Field { $($($variant),+),+ }

        pub(super) const ROOTS: &[&str] = &[$($root),+];

        pub(super) fn names_of(root: &str) -> &'static [&'static str] {
            match root { $($root => &[$($name),+],)+ _ => &[] }
        }

        pub(super) fn field(root: &str, name: &str) -> Option<(Field, Type, Option<About>)> {
            match (root, name) {
                $($(($root, $name) => Some((Field::$variant, $kind, about(root))),)+)+
                _ => None,
            }
        }

        fn about(root: &str) -> Option<About> {
            match root { $($($root => Some(About::$about),)?)+ _ => None }
        }
    };
}

fields! {
    "stmt" about Sql {
        "effects": Type::Effects => StatementEffects,
        "hasWhere": Type::Bool => StatementHasWhere,
        "whereTautology": Type::Bool => StatementWhereTautology,
        "readable": Type::Bool => StatementReadable,
        "textLen": Type::Int => StatementTextLen,
        "objects": Type::Objects => StatementObjects,
        "count": Type::Int => StatementCount,
    }
    "http" about Http {
        "method": Type::Text => HttpMethod,
        "path": Type::Text => HttpPath,
        "host": Type::Text => HttpHost,
        "query": Type::Text => HttpQuery,
        "headers": Type::Headers => HttpHeaders,
    }
    "login" about Login {
        "user": Type::Text => LoginUser,
        "database": Type::Text => LoginDatabase,
        "application": Type::Text => LoginApplication,
        "replication": Type::Bool => LoginReplication,
    }
    "workload" {
        "name": Type::Text => WorkloadName,
        "exe": Type::Text => WorkloadExe,
        "uid": Type::Int => WorkloadUid,
        "gid": Type::Int => WorkloadGid,
        "unit": Type::Text => WorkloadUnit,
        "cgroup": Type::Text => WorkloadCgroup,
        "pid": Type::Int => WorkloadPid,
    }
    "session" {
        "protocol": Type::Text => SessionProtocol,
        "upstream": Type::Text => SessionUpstream,
        "address": Type::Text => SessionAddress,
        "port": Type::Int => SessionPort,
    }
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Member {
    Kind,
    Name,
    Schema,
    Write,
}

pub(super) const MEMBERS: &[&str] = &["kind", "schema", "name", "write"];

impl Type {
    /// Closed vocabularies are text when it comes to operators.
    pub(super) fn plain(self) -> Self {
        match self {
            Self::Effect | Self::Kind => Self::Text,
            other => other,
        }
    }

    pub(super) fn words(self) -> &'static str {
        match self {
            Self::Bool => "true or false",
            Self::Effect => "an effect",
            Self::Effects => "a list of effects",
            Self::Headers => "the headers",
            Self::Int => "a number",
            Self::Kind => "a kind of object",
            Self::List(_) => "a list",
            Self::Object => "an object",
            Self::Objects => "a list of objects",
            Self::Text => "text",
        }
    }
}

/// The words for kinds of objects, in matchers and conditions alike.
pub(in crate::policy) const OBJECT_KINDS: &[(&str, ObjectKind)] = &[
    ("database", ObjectKind::Database),
    ("function", ObjectKind::Function),
    ("index", ObjectKind::Index),
    ("other", ObjectKind::Other),
    ("role", ObjectKind::Role),
    ("schema", ObjectKind::Schema),
    ("sequence", ObjectKind::Sequence),
    ("table", ObjectKind::Table),
    ("type", ObjectKind::Type),
    ("view", ObjectKind::View),
];
